/* chrek.h, over directories that play chrek's part. */
#include "../../../include/chrek.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "harness/test.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>

static void use(const char *dir)
{
    CHECK(setenv("CHREK_DIR", dir, 1) == 0);
    CHECK(unsetenv("DYN_CHECKPOINT_READY_FILE") == 0);
    CHECK(unsetenv("DYN_CHECKPOINT_SIGNAL_FILE") == 0);
    CHECK(unsetenv("DYN_RESTORE_MARKER_FILE") == 0);
}

static const char *in_dir(const char *name)
{
    static char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/%s", test_dir(), name);
    return path;
}

static void put_bytes(const char *name, const void *data, size_t len)
{
    struct err err = ERR_INIT;
    CHECK_OK(fs_write_whole(AT_FDCWD, in_dir(name), data, len, 0644, &err));
}

static void put(const char *name, const char *text)
{
    put_bytes(name, text, strlen(text));
}

static void use_job(void)
{
    use("/nowhere/at/all");
    CHECK(setenv("DYN_CHECKPOINT_READY_FILE", in_dir("job-ready"), 1) == 0);
    CHECK(setenv("DYN_CHECKPOINT_SIGNAL_FILE", in_dir("signal"), 1) == 0);
    CHECK(setenv("DYN_RESTORE_MARKER_FILE", in_dir("marker"), 1) == 0);
}

TEST(alone_nothing_is_written_and_wait_returns_at_once)
{
    char value[16];
    unsigned char random[16] = {0}, zero[16] = {0};
    use("/nowhere/at/all");
    CHECK_INT(chrek_ready(), 0);
    CHECK_INT(chrek_wait(-1), CHREK_ALONE);
    CHECK_INT(chrek_generation(), -ENOENT);
    CHECK(!chrek_restored());
    CHECK(setenv("SOME_NAME", "value", 1) == 0);
    CHECK_INT(chrek_getenv("SOME_NAME", value, sizeof(value)), 5);
    CHECK_STR(value, "value");
    CHECK_INT(chrek_getenv("SOME_NAME", value, 5), -ERANGE);
    CHECK_INT(chrek_getenv("NO_SUCH_NAME", value, sizeof(value)), -ENOENT);
    CHECK_INT(chrek_random(random, sizeof(random)), 0);
    CHECK(memcmp(random, zero, sizeof(random)) != 0);
}

TEST(ready_writes_the_file_that_chrek_waits_for)
{
    use(test_dir());
    put("generation", "0\n");
    CHECK_INT(chrek_ready(), 0);
    CHECK(access(in_dir("ready"), F_OK) == 0);
    CHECK_INT(chrek_wait(30), CHREK_TIMEOUT);
}

TEST(the_original_goes_on_when_it_is_saved_and_when_it_is_not)
{
    use(test_dir());
    put("generation", "0\n");
    CHECK_INT(chrek_ready(), 0);
    put("outcome", "saved web\n");
    CHECK_INT(chrek_wait(-1), CHREK_SAVED);
    CHECK(!chrek_restored());
    CHECK_INT(chrek_ready(), 0);
    CHECK_INT(chrek_wait(30), CHREK_TIMEOUT);
    put("outcome", "failed no space left\n");
    CHECK_INT(chrek_wait(-1), CHREK_NOT_SAVED);
}

TEST(a_new_generation_is_a_restore)
{
    use(test_dir());
    put("generation", "4\n");
    CHECK_INT(chrek_ready(), 0);
    CHECK_INT(chrek_wait(30), CHREK_TIMEOUT);
    put("generation", "5\n");
    CHECK_INT(chrek_wait(-1), CHREK_RESTORED);
    CHECK(chrek_restored());
    CHECK_INT(chrek_generation(), 5);
}

TEST(wait_sees_a_restore_while_it_waits)
{
    use(test_dir());
    put("generation", "0\n");
    CHECK_INT(chrek_ready(), 0);
    pid_t pid = fork();
    if (pid == 0)
        _exit(chrek_wait(10000) == CHREK_RESTORED ? 0 : 1);
    (void)usleep(30000);
    put("generation", "1\n");
    int status = -1;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_INT(status, 0);
}

TEST(a_generation_that_is_no_number_is_an_error)
{
    use(test_dir());
    put("generation", "1x\n");
    CHECK_INT(chrek_generation(), -EINVAL);
    put("generation", "99999999999999999999\n");
    CHECK_INT(chrek_generation(), -EINVAL);
    put("generation", "");
    CHECK_INT(chrek_generation(), -ENOENT);
    put("generation", "0000000000000000000000000000000000000000001\n");
    CHECK_INT(chrek_generation(), -ERANGE);
}

TEST(variables_of_the_restorer_are_found_and_unescaped)
{
    char value[32];
    use(test_dir());
    put("env", "AB=no\nA=1\nB=two\\nlines\nC=back\\\\nslash\nD=\nE=x=y\n");
    CHECK_INT(chrek_getenv("A", value, sizeof(value)), 1);
    CHECK_STR(value, "1");
    CHECK_INT(chrek_getenv("B", value, sizeof(value)), 9);
    CHECK_STR(value, "two\nlines");
    CHECK_INT(chrek_getenv("C", value, sizeof(value)), 11);
    CHECK_STR(value, "back\\nslash");
    CHECK_INT(chrek_getenv("D", value, sizeof(value)), 0);
    CHECK_STR(value, "");
    CHECK_INT(chrek_getenv("E", value, sizeof(value)), 3);
    CHECK_STR(value, "x=y");
    CHECK_INT(chrek_getenv("two", value, sizeof(value)), -ENOENT);
    CHECK_INT(chrek_getenv("B", value, 9), -ERANGE);
}

TEST(random_bytes_come_from_the_file)
{
    unsigned char bytes[64], got[64];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)i;
    use(test_dir());
    put_bytes("random", bytes, sizeof(bytes));
    CHECK_INT(chrek_random(got, sizeof(got)), 0);
    CHECK(memcmp(bytes, got, sizeof(got)) == 0);
    CHECK_INT(chrek_random(got, 65), -EINVAL);
}

TEST(a_job_writes_the_contract_s_ready_text)
{
    char text[16] = "";
    use_job();
    CHECK(chrek_is_job());
    CHECK_INT(chrek_ready(), 0);
    CHECK_INT(chrek_private_read(in_dir("job-ready"), text, sizeof(text) - 1), 5);
    CHECK_STR(text, "ready");
}

TEST(a_job_reads_success_from_the_signal_file)
{
    use_job();
    CHECK_INT(chrek_ready(), 0);
    CHECK_INT(chrek_wait(30), CHREK_TIMEOUT);
    put("signal", "{\n  \"checkpoint_id\": \"a\",\n  \"success\": true\n}");
    CHECK_INT(chrek_wait(-1), CHREK_SAVED);
    put("signal", "{\n  \"success\": false,\n  \"error\": \"true\"\n}");
    CHECK_INT(chrek_wait(-1), CHREK_NOT_SAVED);
    put("signal", "2026-01-31T12:00:00Z");
    CHECK_INT(chrek_wait(-1), CHREK_NOT_SAVED);
}

TEST(the_marker_counts_before_the_signal_file)
{
    use_job();
    CHECK_INT(chrek_ready(), 0);
    put("signal", "{\"success\": true}");
    put("marker", "restored");
    CHECK_INT(chrek_wait(-1), CHREK_RESTORED);
    CHECK(chrek_restored());
}

TEST(a_full_path_is_refused_and_never_cut)
{
    static char deep[PATH_MAX];
    char text[8];
    memset(deep, 'x', sizeof(deep) - 1);
    deep[0] = '/';
    use(deep);
    CHECK_INT(chrek_read("generation", text, sizeof(text)), -ENAMETOOLONG);
    CHECK_INT(chrek_generation(), -ENAMETOOLONG);
}

/* With file systems of our own at /run, and at /run/chrek as a box has. */
TEST(what_lies_at_the_usual_place_counts_only_in_a_box)
{
    struct err err = ERR_INIT;
    char text[16];
    if (unshare(CLONE_NEWNS) < 0)
        test_skip("needs a mount namespace");
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mount("run", "/run", "tmpfs", 0, "size=1m") == 0);
    use("");
    for (int box = 0; box < 2; box++) {
        CHECK(!box || mount("chrek", "/run/chrek", "tmpfs", 0, "size=1m") == 0);
        CHECK_OK(fs_mkdirs(CHREK_DEFAULT_DIR, 0755, &err));
        CHECK_OK(fs_write_whole(AT_FDCWD, CHREK_DEFAULT_DIR "/generation", "14\n", 3, 0644, &err));
        CHECK_OK(fs_write_whole(AT_FDCWD, CHREK_DEFAULT_DIR "/random", "", 0, 0644, &err));
        CHECK_INT(chrek_generation(), box ? 14 : -ENOENT);
        CHECK_INT(chrek_restored(), box);
        CHECK_INT(chrek_ready(), 0);
        CHECK_INT(access(CHREK_DEFAULT_DIR "/ready", F_OK), box ? 0 : -1);
        CHECK_INT(chrek_wait(10), box ? CHREK_TIMEOUT : CHREK_ALONE);
        CHECK_INT(chrek_random(text, 8), box ? -EIO : 0);
    }
}

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"
#include "engine/appdir.h"
#include "harness/test.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_dir(void)
{
    int fd = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CHECK(fd >= 0);
    return fd;
}

static void check_file(int dir, const char *name, const char *want)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CHECK_OK(fs_read_file(dir, name, 4096, &text, &err));
    CHECK_STR(buf_str(&text), want);
}

TEST(a_cold_start_has_generation_zero_and_no_checkpoint)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    char a[] = "A=1", b[] = "B=two\nlines \\ and a backslash";
    char *env[] = {a, b, NULL};
    struct appdir_identity id = {.hostname = "h", .env = env};
    CHECK_OK(appdir_write(dir, &id, &err));
    check_file(dir, "generation", "0\n");
    check_file(dir, "hostname", "h\n");
    check_file(dir, "env", "A=1\nB=two\\nlines \\\\ and a backslash\n");
    CHECK(faccessat(dir, "checkpoint_id", F_OK, 0) < 0);
    CHECK(faccessat(dir, "restored_at", F_OK, 0) < 0);
}

TEST(the_environment_is_for_its_owner_alone)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    struct stat st;
    CHECK_OK(appdir_write(dir, &(struct appdir_identity){.hostname = "h"}, &err));
    CHECK(fstatat(dir, "env", &st, 0) == 0);
    CHECK_INT(st.st_mode & 07777, 0600);
}

TEST(random_bytes_differ_from_life_to_life)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CLEANUP(buf_done) struct buf a = BUF_INIT;
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    struct appdir_identity id = {.hostname = "h"};
    CHECK_OK(appdir_write(dir, &id, &err));
    CHECK_OK(fs_read_file(dir, "random", 4096, &a, &err));
    CHECK_OK(appdir_write(dir, &id, &err));
    CHECK_OK(fs_read_file(dir, "random", 4096, &b, &err));
    CHECK_INT(a.len, 64);
    CHECK_INT(b.len, 64);
    CHECK(memcmp(a.data, b.data, 64) != 0);
}

TEST(a_new_life_forgets_ready_and_outcome_of_the_former)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CHECK_OK(fs_write_whole(dir, "ready", "", 0, 0644, &err));
    CHECK_OK(appdir_write_outcome(dir, "web", NULL, &err));
    CHECK(appdir_is_ready(dir));
    struct appdir_identity id = {
        .generation = 3, .checkpoint_id = "web", .restored_at = "now", .hostname = "h"};
    CHECK_OK(appdir_write(dir, &id, &err));
    CHECK(!appdir_is_ready(dir));
    CHECK(faccessat(dir, "outcome", F_OK, 0) < 0);
    check_file(dir, "generation", "3\n");
    check_file(dir, "checkpoint_id", "web\n");
    check_file(dir, "restored_at", "now\n");
}

TEST(an_outcome_names_the_checkpoint_or_the_reason)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CHECK_OK(appdir_write_outcome(dir, "web", NULL, &err));
    check_file(dir, "outcome", "saved web\n");
    CHECK_OK(appdir_write_outcome(dir, NULL, "no space left", &err));
    check_file(dir, "outcome", "failed no space left\n");
}

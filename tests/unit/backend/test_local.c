#include "backend/drivers.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "unit/backend/conformance.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static enum rc open_local(void *arg, struct backend **out, struct err *err)
{
    (void)arg;
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CHECK(dir >= 0);
    return backend_local_open(dir, out, err);
}

static const struct conformance local = {.open = open_local};

TEST(conforms)
{
    conformance(&local);
}

TEST(survives_every_failure)
{
    conformance_failures(&local);
}

TEST(survives_a_crash_anywhere)
{
    conformance_crashes(&local);
}

static void make_file(const char *path, const char *text, time_t age)
{
    CLEANUP(mem_freep) char *whole = mem_asprintf("%s/%s", test_dir(), path);
    CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, whole, O_WRONLY | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    struct timespec times[2] = {{.tv_sec = time(NULL) - age}, {.tv_sec = time(NULL) - age}};
    CHECK(futimens(fd, times) == 0);
}

static bool is_there(const char *path)
{
    CLEANUP(mem_freep) char *whole = mem_asprintf("%s/%s", test_dir(), path);
    return faccessat(AT_FDCWD, whole, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static enum rc refuse(void *arg, const char *key, uint64_t size, struct err *err)
{
    (void)arg;
    (void)size;
    return err_set(err, RC_CONFLICT, "'%s' was listed", key);
}

TEST(what_a_dead_writer_has_left_is_swept_when_it_is_a_day_old)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = NULL;
    CHECK_OK(open_local(NULL, &b, &err));
    make_file(".up-00000000", "old", 25 * 3600L);
    make_file(".up-11111111", "young", 23 * 3600L);
    make_file(".up-notes", "old", 25 * 3600L);
    CHECK_OK(backend_list(b, "", refuse, NULL, &err));
    CHECK(!is_there(".up-00000000"));
    CHECK(is_there(".up-notes")); /* somebody else's */
    CHECK(is_there(".up-11111111"));
}

TEST(links_and_other_things_are_no_objects)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = NULL;
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    CLEANUP(mem_freep) char *link = mem_asprintf("%s/link", test_dir());
    CLEANUP(mem_freep) char *fifo = mem_asprintf("%s/fifo", test_dir());
    CLEANUP(mem_freep) char *out = mem_asprintf("%s/out", test_dir());
    CHECK_OK(open_local(NULL, &b, &err));
    CHECK(symlink("/etc/passwd", link) == 0);
    CHECK(symlink("/etc", out) == 0);
    CHECK(mkfifo(fifo, 0600) == 0);
    CHECK(backend_open(b, "link", &o, &err) != RC_OK && !o);
    CHECK(backend_open(b, "out/passwd", &o, &err) != RC_OK && !o);
    CHECK_RC(backend_open(b, "fifo", &o, &err), RC_CORRUPT);
    CHECK(backend_put(b, "out/new", "x", 1, &err) != RC_OK);
    CHECK_RC(backend_put(b, "link", "x", 1, &err), RC_EXISTS);
    CHECK_OK(backend_list(b, "", refuse, NULL, &err));
}

TEST(an_object_that_was_cut_off_says_so)
{
    struct err err = ERR_INIT;
    char got[8];
    CLEANUP(backend_freep) struct backend *b = NULL;
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/k", test_dir());
    CHECK_OK(open_local(NULL, &b, &err));
    CHECK_OK(backend_put(b, "k", "12345678", 8, &err));
    CHECK_OK(backend_open(b, "k", &o, &err));
    CHECK(truncate(path, 4) == 0);
    CHECK_RC(backend_read(o, 0, got, 8, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "has become shorter"));
}

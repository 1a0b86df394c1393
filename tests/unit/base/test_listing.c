#include "base/compiler.h"
#include "base/listing.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_dir(void)
{
    int fd = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CHECK(fd >= 0);
    return fd;
}

TEST(all_names_are_there_in_order)
{
    struct err err = ERR_INIT;
    static const char *const names[] = {"b", "...", "a\xff", ".hidden", "B", "a"};
    static const char *const order[] = {"...", ".hidden", "B", "a", "a\xff", "b"};
    CLEANUP(fd_closep) int dir = open_dir();
    CLEANUP(listing_done) struct listing none = {.n = 0};
    CHECK_OK(listing_read(dir, ".", &none, &err));
    CHECK_INT(none.n, 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        CHECK(mkdirat(dir, names[i], 0700) == 0);
    CLEANUP(listing_done) struct listing l = {.n = 0};
    CHECK_OK(listing_read(AT_FDCWD, test_dir(), &l, &err));
    CHECK_INT(l.n, ARRAY_LEN(order));
    for (size_t i = 0; i < l.n; i++)
        CHECK_STR(l.name[i], order[i]);
}

TEST(what_is_no_directory_is_an_error)
{
    struct err err = ERR_INIT;
    struct listing l = {.n = 0};
    CLEANUP(fd_closep) int dir = open_dir();
    CHECK(mkdirat(dir, "d", 0700) == 0 && symlinkat("d", dir, "link") == 0);
    CHECK_RC(listing_read(dir, "none", &l, &err), RC_NOT_FOUND);
    CHECK_RC(listing_read(dir, "link", &l, &err), RC_IO);
    CHECK(l.n == 0 && !l.name);
}

TEST(a_directory_that_is_read_in_part_is_an_error)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CHECK(mkdirat(dir, "a", 0700) == 0 && mkdirat(dir, "b", 0700) == 0);
    for (unsigned i = 0;; i++) {
        CLEANUP(listing_done) struct listing l = {.n = 0};
        int fds = test_open_fds();
        fault_arm(i, FAULT_FAIL);
        enum rc rc = listing_read(dir, ".", &l, &err);
        bool hit = fault_passed() > i;
        fault_disarm();
        CHECK((rc != RC_OK) == hit);
        CHECK(test_open_fds() == fds);
        CHECK_INT(l.n, hit ? 0 : 2);
        if (!hit)
            break;
    }
}

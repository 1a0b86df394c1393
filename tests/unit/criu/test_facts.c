/* Where CRIU keeps what it has found out; that it does so, the system tests see. */
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/facts.h"
#include "harness/test.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_in_test(const char *criu, char name[CR_FACTS_NAME])
{
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/facts", test_dir());
    if (geteuid() != 0)
        test_skip("machine: not root");
    return cr_facts_open(path, criu, name);
}

TEST(the_name_means_one_program)
{
    char one[CR_FACTS_NAME], same[CR_FACTS_NAME], other[CR_FACTS_NAME];
    CLEANUP(fd_closep) int a = open_in_test("/bin/sh", one);
    CLEANUP(fd_closep) int b = open_in_test("/bin/sh", same);
    CLEANUP(fd_closep) int c = open_in_test("/proc/self/exe", other);
    CHECK(a >= 0 && b >= 0 && c >= 0);
    CHECK(strcmp(one, same) == 0 && strcmp(one, other) != 0);
    CHECK(!strchr(one, '/') && strlen(one) < NAME_MAX);
}

TEST(what_others_may_write_is_not_believed)
{
    char name[CR_FACTS_NAME];
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/facts", test_dir());
    CHECK(mkdir(path, 0700) == 0 && chmod(path, 0777) == 0);
    CHECK_INT(open_in_test("/bin/sh", name), -1);
    CHECK(chmod(path, 0700) == 0 && chown(path, 1, 1) == 0);
    CHECK_INT(open_in_test("/bin/sh", name), -1);
    CHECK(rmdir(path) == 0 && symlink("/tmp", path) == 0);
    CHECK_INT(open_in_test("/bin/sh", name), -1);
}

TEST(without_a_program_there_is_no_name)
{
    char name[CR_FACTS_NAME];
    CHECK_INT(open_in_test("/nowhere/criu", name), -1);
}

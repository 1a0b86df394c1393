#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"
#include "container/room.h"
#include "harness/test.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void put(int dir, const char *name, const char *text)
{
    struct err err = ERR_INIT;
    CHECK_OK(fs_write_whole(dir, name, text, strlen(text), 0600, &err));
}

static int make_group(int above, const char *name)
{
    CHECK(mkdirat(above, name, 0700) == 0);
    int dir = sys_openat(above, name, O_RDONLY | O_DIRECTORY, 0);
    CHECK(dir >= 0);
    return dir;
}

TEST(the_smallest_of_all_limits_counts_without_what_can_be_dropped)
{
    struct err err = ERR_INIT;
    uint64_t left = 0;
    CLEANUP(fd_closep) int root = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CLEANUP(fd_closep) int outer = make_group(root, "outer");
    CLEANUP(fd_closep) int inner = make_group(outer, "inner");
    put(inner, "memory.max", "max\n");
    put(inner, "memory.current", "5000\n");
    put(inner, "memory.stat", "anon 1\ninactive_file 1000\n");
    CHECK_OK(room_of_group(inner, true, &left, &err)); /* outer is no group yet: a root */
    CHECK(left > UINT64_MAX / 2);
    put(outer, "memory.max", "10000\n");
    put(outer, "memory.current", "9000\n");
    put(outer, "memory.stat", "active_file 7\ninactive_file 2000\n");
    CHECK_OK(room_of_group(inner, true, &left, &err));
    CHECK_INT(left, 3000);
    put(inner, "memory.max", "6000\n");
    CHECK_OK(room_of_group(inner, true, &left, &err));
    CHECK_INT(left, 2000);
    put(inner, "memory.current", "9000\n"); /* a limit that was lowered */
    CHECK_OK(room_of_group(inner, true, &left, &err));
    CHECK_INT(left, 0);
    CHECK_OK(room_of_group(root, true, &left, &err));
    CHECK(left == UINT64_MAX);
}

TEST(the_limit_above_a_group_without_the_controller_counts)
{
    struct err err = ERR_INIT;
    uint64_t left = 0;
    CLEANUP(fd_closep) int root = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CLEANUP(fd_closep) int outer = make_group(root, "slice");
    CLEANUP(fd_closep) int inner = make_group(outer, "scope");
    put(outer, "cgroup.procs", "");
    put(inner, "cgroup.procs", "1\n");
    put(outer, "memory.max", "10000\n");
    put(outer, "memory.current", "9000\n");
    put(outer, "memory.stat", "inactive_file 2000\n");
    CHECK_OK(room_of_group(inner, true, &left, &err));
    CHECK_INT(left, 3000);
}

TEST(the_older_hierarchy_has_other_names)
{
    struct err err = ERR_INIT;
    uint64_t left = 0;
    CLEANUP(fd_closep) int root = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CLEANUP(fd_closep) int group = make_group(root, "v1");
    put(group, "memory.limit_in_bytes", "4096\n");
    put(group, "memory.usage_in_bytes", "4000\n");
    put(group, "memory.stat", "inactive_file 50\ntotal_inactive_file 100\n");
    CHECK_OK(room_of_group(group, false, &left, &err));
    CHECK_INT(left, 196);
}

TEST(a_process_has_at_most_what_the_machine_has)
{
    struct err err = ERR_INIT;
    uint64_t left = 0;
    CHECK(room_machine() > 0);
    enum rc rc = room_of(getpid(), &left, &err);
    if (rc) /* our groups are not to be seen from here */
        CHECK(rc == RC_NOT_FOUND || rc == RC_DENIED);
    else
        CHECK(left > 0 && left < (uint64_t)1 << 50);
}

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/mounts.h"
#include "harness/test.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static const char text[] =
    "36 35 0:98 / / rw,noatime shared:4 master:1 propagate_from:2 - overlay over\\040lay "
    "rw,lowerdir=/l1:/l2,upperdir=/up\\134,per,workdir=/w\n"
    "37 36 8:1 /sub\\040dir /mnt/with\\011tab ro,nosuid - ext4 /dev/sda1 rw,errors=continue\n"
    "38 36 0:5 / /dev rw - devtmpfs  rw\n"
    "39 36 0:6 / /dev/shm rw unbindable - tmpfs none rw,size=1k\n"
    "40 36 0:7 / /dev rw - tmpfs none rw\n";

static void parse(struct mounts *m)
{
    struct err err = ERR_INIT;
    CHECK_OK(mounts_parse(text, strlen(text), m, &err));
}

TEST(each_field_is_told_with_escapes_undone)
{
    CLEANUP(mounts_done) struct mounts m = {0};
    parse(&m);
    CHECK_INT(m.n, 5);
    CHECK_INT(m.list[0].id, 36);
    CHECK_INT(m.list[0].parent, 35);
    CHECK_INT(m.list[0].minor, 98);
    CHECK_INT(m.list[0].shared, 4);
    CHECK_INT(m.list[0].master, 1);
    CHECK_STR(m.list[0].source, "over lay");
    CHECK_STR(m.list[0].options, "rw,noatime");
    CHECK_STR(m.list[1].root, "/sub dir");
    CHECK_STR(m.list[1].target, "/mnt/with\ttab");
    CHECK_STR(m.list[1].type, "ext4");
    CHECK_STR(m.list[1].super, "rw,errors=continue");
    CHECK_INT(m.list[1].major, 8);
    CHECK_STR(m.list[2].source, "");
    CHECK_STR(m.list[2].super, "rw");
}

TEST(mounts_are_found_by_id_and_by_path)
{
    CLEANUP(mounts_done) struct mounts m = {0};
    parse(&m);
    CHECK(mounts_by_id(&m, 38) == &m.list[2]);
    CHECK(!mounts_by_id(&m, 1));
    CHECK(mounts_root(&m) == &m.list[0]);
    CHECK(mounts_of_path(&m, "/home/x") == &m.list[0]);
    CHECK(mounts_of_path(&m, "/dev/null") == &m.list[4]); /* the later one covers */
    CHECK(mounts_of_path(&m, "/dev/shm/x") == &m.list[3]);
    CHECK(mounts_of_path(&m, "/devil") == &m.list[0]);
    CHECK(!mounts_of_path(&m, "relative"));
}

TEST(options_are_exact_and_may_hold_commas)
{
    CLEANUP(mounts_done) struct mounts m = {0};
    parse(&m);
    CLEANUP(mem_freep) char *upper = mounts_option(m.list[0].super, "upperdir");
    CLEANUP(mem_freep) char *lower = mounts_option(m.list[0].super, "lowerdir");
    CHECK_STR(upper, "/up,per");
    CHECK_STR(lower, "/l1:/l2");
    CHECK(!mounts_option(m.list[0].super, "upper"));
    CHECK(!mounts_option(m.list[0].super, "rw"));
    CHECK(mounts_has_option(m.list[1].options, "nosuid"));
    CHECK(!mounts_has_option(m.list[1].options, "nosu"));
    CHECK(!mounts_has_option(m.list[1].options, "rw"));
    CHECK(!mounts_has_option("", "rw"));
}

TEST(a_line_that_makes_no_sense_is_refused)
{
    static const char *const bad[] = {
        "36",
        "x 35 98:0 / / rw - ext4 s o",
        "36 35 98 / / rw - ext4 s o",
        "36 35 98:x / / rw - ext4 s o",
        "36 35 98:0 / / rw shared:x - ext4 s o",
        "36 35 98:0 / / rw shared:1 master:2",
        "36 35 98:0 / / rw -",
        "36 35 98:0 / / rw - ext4",
        "99999999999 35 98:0 / / rw - ext4 s o",
        "36 35 98:0 / / rw - ext4 s o\n\n",
    };
    struct err err = ERR_INIT;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct mounts m = {.n = 77};
        CHECK_RC(mounts_parse(bad[i], strlen(bad[i]), &m, &err), RC_CORRUPT);
        CHECK_INT(m.n, 77);
    }
    CHECK(strstr(err.msg, "mount 2 makes no sense"));
}

TEST(our_own_mounts_agree_with_stat)
{
    struct err err = ERR_INIT;
    struct stat st;
    CLEANUP(mounts_done) struct mounts m = {0};
    CLEANUP(fd_closep) int self = sys_openat(AT_FDCWD, "/proc/self", O_RDONLY | O_DIRECTORY, 0);
    CHECK_OK(mounts_read(self, &m, &err));
    const struct mount *proc = mounts_of_path(&m, "/proc/self");
    CHECK(proc && stat("/proc", &st) == 0);
    CHECK_STR(proc->type, "proc");
    CHECK_INT(proc->major, major(st.st_dev));
    CHECK_INT(proc->minor, minor(st.st_dev));
    CHECK(mounts_root(&m));
}

#include "base/buf.h"
#include "base/fs.h"
#include "base/sys.h"
#include "harness/test.h"
#include "rootfs/apply.h"
#include "rootfs/diff.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static int make_dir(int at, const char *name)
{
    CHECK(mkdirat(at, name, 0755) == 0);
    int fd = sys_openat(at, name, O_RDONLY | O_DIRECTORY, 0);
    CHECK(fd >= 0);
    return fd;
}

static void put(int dir, const char *name, const char *text)
{
    struct err err = ERR_INIT;
    CHECK_OK(fs_write_whole(dir, name, text, strlen(text), 0644, &err));
}

static bool is_there(int dir, const char *name)
{
    struct stat st;
    return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static void check_text(int dir, const char *name, const char *want)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CHECK_OK(fs_read_file(dir, name, 4096, &text, &err));
    CHECK_STR(buf_str(&text), want);
}

/* An image with files, a workload's upper directory over it, and what a new container of that image
 * must look like afterwards. */
TEST(changes_and_deletions_arrive_in_a_new_container)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int top = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CLEANUP(fd_closep) int lower = make_dir(top, "lower");
    CLEANUP(fd_closep) int upper = make_dir(top, "upper");
    CLEANUP(fd_closep) int ckpt = make_dir(top, "ckpt");
    CLEANUP(fd_closep) int fresh = make_dir(top, "fresh");
    static const char *const dirs[] = {"usr", "etc", "opaque", "mnt"};
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
        CHECK(mkdirat(lower, dirs[i], 0755) == 0 && mkdirat(upper, dirs[i], 0755) == 0 &&
              mkdirat(fresh, dirs[i], 0755) == 0);
    int both[] = {lower, fresh};
    for (size_t i = 0; i < 2; i++) {
        put(both[i], "usr/changed", "old");
        put(both[i], "usr/gone", "old");
        put(both[i], "opaque/hidden", "old");
        put(both[i], "etc/hosts", "the container's own");
        put(both[i], "mnt/file", "mounted");
    }
    put(upper, "usr/changed", "new");
    put(upper, "usr/added", "new");
    put(upper, "etc/hosts", "the workload's");
    put(upper, "opaque/kept", "new");
    put(upper, "mnt/file", "under the mount");
    if (mknodat(upper, "usr/gone", S_IFCHR, makedev(0, 0)) < 0 ||
        fsetxattr(upper, "trusted.overlay.origin", "x", 1, 0) < 0)
        test_skip("machine: no right to make whiteouts");
    CLEANUP(fd_closep) int opaque = sys_openat(upper, "opaque", O_RDONLY | O_DIRECTORY, 0);
    CHECK(fsetxattr(opaque, "trusted.overlay.opaque", "y", 1, 0) == 0);

    static const char *const mounts[] = {"mnt", NULL};
    struct diff_source from = {.upper = upper, .lower = &lower, .n_lower = 1, .mounts = mounts};
    bool diff = false, deleted = false;
    CHECK_OK(rootfs_capture(&from, ckpt, &diff, &deleted, &err));
    CHECK(diff && deleted);
    CLEANUP(buf_done) struct buf list = BUF_INIT;
    CHECK_OK(fs_read_file(ckpt, ROOTFS_DELETED, 4096, &list, &err));
    CHECK(list.len == strlen("[\"usr/gone\",\"opaque/hidden\"]") &&
          strstr(list.data, "\"usr/gone\"") && strstr(list.data, "\"opaque/hidden\""));
    check_text(ckpt, ROOTFS_DELETED_OLD, buf_str(&list));

    CHECK_OK(rootfs_apply_files(ckpt, fresh, &err));
    CHECK_OK(rootfs_apply_deletions(ckpt, fresh, &err));
    check_text(fresh, "usr/changed", "new");
    check_text(fresh, "usr/added", "new");
    check_text(fresh, "opaque/kept", "new");
    check_text(fresh, "etc/hosts", "the container's own");
    check_text(fresh, "mnt/file", "mounted");
    CHECK(!is_there(fresh, "usr/gone") && !is_there(fresh, "opaque/hidden"));
    char value[8];
    CHECK(fgetxattr(fresh, "trusted.overlay.origin", value, 8) < 0);
}

TEST(hostile_deletions_reach_nothing_outside)
{
    static const char *const lists[] = {"[\"../outside/x\"]",
                                        "[\"/outside/x\"]",
                                        "[\"a/../../outside/x\"]",
                                        "[\"\"]",
                                        "[\".\"]",
                                        "[\"link/x\"]",
                                        "[5]",
                                        "{}",
                                        "[\"a//b\"]",
                                        "[\"link/../../outside/x\"]"};
    CLEANUP(fd_closep) int top = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CLEANUP(fd_closep) int ckpt = make_dir(top, "ckpt");
    CLEANUP(fd_closep) int root = make_dir(top, "root");
    CLEANUP(fd_closep) int outside = make_dir(top, "outside");
    put(outside, "x", "precious");
    put(root, "file", "x");
    CHECK(symlinkat("../outside", root, "link") == 0);
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        struct err err = ERR_INIT;
        put(ckpt, ROOTFS_DELETED, lists[i]);
        (void)!rootfs_apply_deletions(ckpt, root, &err);
        check_text(outside, "x", "precious");
        CHECK(is_there(root, "file") && is_there(root, "link"));
    }
}

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"
#include "harness/test.h"
#include "rootfs/apply.h"
#include "rootfs/diff.h"

#include <archive.h>
#include <archive_entry.h>
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

/* ---- archives of other programs ---- */

static void add_entry(struct archive *a, const char *path, unsigned type, const char *link)
{
    struct archive_entry *e = archive_entry_new();
    archive_entry_set_pathname(e, path);
    archive_entry_set_filetype(e, type);
    archive_entry_set_perm(e, 0755);
    if (type == AE_IFLNK)
        archive_entry_set_symlink(e, link);
    else if (link && type != AE_IFDIR)
        archive_entry_set_hardlink(e, link);
    if (type == AE_IFDIR && link) /* opaque */
        archive_entry_xattr_add_entry(e, "trusted.overlay.opaque", "y", 1);
    if (type == AE_IFREG && !link)
        archive_entry_set_size(e, 3);
    CHECK(archive_write_header(a, e) == ARCHIVE_OK);
    if (type == AE_IFREG && !link)
        CHECK(archive_write_data(a, "new", 3) == 3);
    archive_entry_free(e);
}

static struct archive *begin_archive(int *out_fd, int ckpt)
{
    struct archive *a = archive_write_new();
    *out_fd = sys_openat(ckpt, ROOTFS_DIFF, O_WRONLY | O_CREAT, 0600);
    CHECK(archive_write_set_format_pax(a) == ARCHIVE_OK);
    CHECK(archive_write_open_fd(a, *out_fd) == ARCHIVE_OK);
    return a;
}

static void end_archive(struct archive *a, int fd)
{
    CHECK(archive_write_close(a) == ARCHIVE_OK && archive_write_free(a) == ARCHIVE_OK);
    (void)close(fd);
}

/* What tar makes of an upper directory: the whiteouts are in it, the second a link to the first. */
TEST(whiteouts_in_the_archive_are_deletions)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int top = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CLEANUP(fd_closep) int ckpt = make_dir(top, "ckpt");
    CLEANUP(fd_closep) int fresh = make_dir(top, "fresh");
    CHECK(mkdirat(fresh, "usr", 0755) == 0 && mkdirat(fresh, "usr/tree", 0755) == 0);
    CHECK(mkdirat(fresh, "opaque", 0755) == 0 && mkdirat(fresh, "marked", 0755) == 0);
    static const char *const files[] = {"usr/first", "usr/tree/file", "usr/third",
                                        "usr/stays", "opaque/old",    "marked/old"};
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        put(fresh, files[i], "old");
    int fd = -1;
    struct archive *a = begin_archive(&fd, ckpt);
    add_entry(a, "./", AE_IFDIR, NULL);
    add_entry(a, "./usr/", AE_IFDIR, NULL);
    add_entry(a, "./usr/first", AE_IFCHR, NULL);
    add_entry(a, "./usr/tree", AE_IFREG, "./usr/first");
    add_entry(a, "./usr/.wh.third", AE_IFREG, NULL);
    add_entry(a, "./opaque", AE_IFDIR, "opaque");
    add_entry(a, "./opaque/new", AE_IFREG, NULL);
    add_entry(a, "./marked", AE_IFDIR, NULL);
    add_entry(a, "./marked/.wh..wh..opq", AE_IFREG, NULL);
    add_entry(a, "./marked/new", AE_IFREG, NULL);
    end_archive(a, fd);
    CHECK_OK(rootfs_apply_files(ckpt, fresh, &err));
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        CHECK(is_there(fresh, files[i]) == (strcmp(files[i], "usr/stays") == 0));
    CHECK(!is_there(fresh, "usr/tree") && !is_there(fresh, "usr/.wh.third"));
    CHECK(!is_there(fresh, "marked/.wh..wh..opq"));
    check_text(fresh, "opaque/new", "new");
    check_text(fresh, "marked/new", "new");
    CLEANUP(fd_closep) int dir = sys_openat(fresh, "opaque", O_RDONLY | O_DIRECTORY, 0);
    char value;
    CHECK(fgetxattr(dir, "trusted.overlay.opaque", &value, 1) < 0);
}

TEST(a_directory_may_become_a_link_or_a_file_and_the_other_way_round)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int top = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CLEANUP(fd_closep) int ckpt = make_dir(top, "ckpt");
    CLEANUP(fd_closep) int fresh = make_dir(top, "fresh");
    CLEANUP(fd_closep) int outside = make_dir(top, "outside");
    static const char *const dirs[] = {"current", "app", "v2"};
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
        CHECK(mkdirat(fresh, dirs[i], 0755) == 0);
    put(fresh, "current/file", "old");
    put(fresh, "app/file", "old");
    CHECK(symlinkat("../outside", fresh, "link") == 0);
    put(fresh, "plain", "old");
    put(outside, "file", "outside");
    int fd = -1;
    struct archive *a = begin_archive(&fd, ckpt);
    add_entry(a, "./current", AE_IFLNK, "v2");
    add_entry(a, "./app", AE_IFREG, NULL);
    add_entry(a, "./link", AE_IFDIR, NULL);
    add_entry(a, "./link/file", AE_IFREG, NULL);
    add_entry(a, "./plain", AE_IFDIR, NULL);
    add_entry(a, "./plain/file", AE_IFREG, NULL);
    end_archive(a, fd);
    CHECK_OK(rootfs_apply_files(ckpt, fresh, &err));
    char target[8] = "";
    CHECK(readlinkat(fresh, "current", target, sizeof(target) - 1) == 2);
    CHECK_STR(target, "v2");
    check_text(fresh, "app", "new");
    check_text(fresh, "link/file", "new");
    check_text(fresh, "plain/file", "new");
    check_text(outside, "file", "outside");
}

TEST(a_deleted_name_that_is_no_utf8_is_deleted_too)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int top = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CLEANUP(fd_closep) int lower = make_dir(top, "lower");
    CLEANUP(fd_closep) int upper = make_dir(top, "upper");
    CLEANUP(fd_closep) int ckpt = make_dir(top, "ckpt");
    CLEANUP(fd_closep) int fresh = make_dir(top, "fresh");
    static const char gone[] = "usr/gone\xff", hidden[] = "opaque/hidden\xfe";
    int all[] = {lower, upper, fresh};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        CHECK(mkdirat(all[i], "usr", 0755) == 0 && mkdirat(all[i], "opaque", 0755) == 0);
        if (all[i] == upper)
            continue;
        put(all[i], gone, "old");
        put(all[i], hidden, "old");
    }
    put(upper, "opaque/kept", "new");
    CLEANUP(fd_closep) int opaque = sys_openat(upper, "opaque", O_RDONLY | O_DIRECTORY, 0);
    if (mknodat(upper, gone, S_IFCHR, makedev(0, 0)) < 0 ||
        fsetxattr(opaque, "trusted.overlay.opaque", "y", 1, 0) < 0)
        test_skip("machine: no right to make whiteouts");
    struct diff_source from = {.upper = upper, .lower = &lower, .n_lower = 1};
    bool diff = false, deleted = true;
    CHECK_OK(rootfs_capture(&from, ckpt, &diff, &deleted, &err));
    CHECK(diff && !deleted);
    CHECK_OK(rootfs_apply_files(ckpt, fresh, &err));
    CHECK(!is_there(fresh, gone) && !is_there(fresh, hidden));
    check_text(fresh, "opaque/kept", "new");
}

TEST(a_directory_that_hides_more_than_can_be_listed_stays_opaque)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int top = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CLEANUP(fd_closep) int upper = make_dir(top, "upper");
    CLEANUP(fd_closep) int ckpt = make_dir(top, "ckpt");
    CLEANUP(fd_closep) int fresh = make_dir(top, "fresh");
    CLEANUP(fd_closep) int opaque = make_dir(upper, "opaque");
    CLEANUP(fd_closep) int image = make_dir(fresh, "opaque");
    put(opaque, "kept", "new");
    put(image, "hidden", "old");
    if (fsetxattr(opaque, "trusted.overlay.opaque", "y", 1, 0) < 0)
        test_skip("machine: no right to make whiteouts");
    struct diff_source from = {.upper = upper, .unseen_lower = true};
    bool diff = false, deleted = true;
    CHECK_OK(rootfs_capture(&from, ckpt, &diff, &deleted, &err));
    CHECK(diff && !deleted);
    CHECK_OK(rootfs_apply_files(ckpt, fresh, &err));
    CHECK(!is_there(image, "hidden"));
    check_text(image, "kept", "new");
}

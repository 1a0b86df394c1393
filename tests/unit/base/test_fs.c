#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int open_dir(void)
{
    int fd = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CHECK(fd >= 0);
    return fd;
}

static void check_old_or_new(int dir)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CHECK_OK(fs_read_file(dir, "f", 100, &text, &err));
    CHECK(strcmp(buf_str(&text), "old") == 0 || strcmp(buf_str(&text), "new content") == 0);
}

TEST(a_write_that_fails_anywhere_leaves_old_or_new)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    for (unsigned i = 0;; i++) {
        CHECK_OK(fs_write_atomic(dir, "f", "old", 3, 0600, &err));
        int fds = test_open_fds();
        fault_arm(i, FAULT_FAIL);
        enum rc rc = fs_write_atomic(dir, "f", "new content", 11, 0600, &err);
        bool hit = fault_passed() > i;
        fault_disarm();
        CHECK((rc != RC_OK) == hit);
        CHECK(test_open_fds() == fds);
        check_old_or_new(dir);
        if (!hit)
            break;
    }
}

TEST(a_crash_anywhere_leaves_old_or_new)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CHECK_OK(fs_write_atomic(dir, "f", "old", 3, 0600, &err));
    for (unsigned i = 0;; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            fault_arm(i, FAULT_CRASH);
            (void)!fs_write_atomic(dir, "f", "new content", 11, 0600, &err);
            fault_disarm();
            _exit(0);
        }
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        check_old_or_new(dir);
        if (WEXITSTATUS(status) == 0)
            break;
    }
}

TEST(trees_are_removed_without_following_links)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CHECK(mkdirat(dir, "tree", 0700) == 0 && mkdirat(dir, "tree/a", 0700) == 0 &&
          mkdirat(dir, "keep", 0700) == 0);
    CHECK_OK(fs_write_whole(dir, "keep/me", "x", 1, 0600, &err));
    CHECK_OK(fs_write_whole(dir, "tree/a/file", "x", 1, 0600, &err));
    CHECK(symlinkat("../keep", dir, "tree/link") == 0);
    CHECK_OK(fs_remove_tree(dir, "tree", &err));
    struct stat st;
    CHECK(fstatat(dir, "tree", &st, AT_SYMLINK_NOFOLLOW) < 0);
    CHECK(fstatat(dir, "keep/me", &st, 0) == 0);
    CHECK_OK(fs_remove_tree(dir, "tree", &err)); /* nothing there is fine */
}

TEST(a_file_over_the_limit_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CHECK_OK(fs_write_whole(dir, "f", "12345", 5, 0600, &err));
    CHECK_RC(fs_read_file(dir, "f", 4, &text, &err), RC_TOO_BIG);
    CHECK_RC(fs_read_file(dir, "none", 4, &text, &err), RC_NOT_FOUND);
}

TEST(directories_are_made_with_their_parents)
{
    struct err err = ERR_INIT;
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/a/b/c", test_dir());
    CHECK_OK(fs_mkdirs(path, 0700, &err));
    CHECK_OK(fs_mkdirs(path, 0700, &err));
    CLEANUP(fd_closep) int dir = open_dir();
    CHECK_OK(fs_write_whole(dir, "file", "x", 1, 0600, &err));
    (void)snprintf(path, sizeof(path), "%s/file/x", test_dir());
    CHECK(fs_mkdirs(path, 0700, &err) != RC_OK);
}

TEST(a_file_over_the_limit_of_its_buffer_is_refused_too)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CLEANUP(buf_done) struct buf text = {.max = 20000};
    CLEANUP(mem_freep) char *big = mem_zalloc(30000);
    CHECK_OK(fs_write_whole(dir, "f", big, 30000, 0600, &err));
    buf_adds(&text, "before");
    CHECK_RC(fs_read_file(dir, "f", 100000, &text, &err), RC_TOO_BIG);
    CHECK_STR(buf_str(&text), "before");
    CHECK(text.len == 6 && !text.overflowed);
    buf_adds(&text, " after");
    CHECK_STR(buf_str(&text), "before after");
}

TEST(a_read_that_fails_anywhere_leaves_the_buffer_as_it_was)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CLEANUP(mem_freep) char *big = mem_zalloc(40000);
    CHECK_OK(fs_write_whole(dir, "f", big, 40000, 0600, &err));
    for (unsigned i = 0;; i++) {
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        buf_adds(&text, "before");
        int fds = test_open_fds();
        fault_arm(i, FAULT_FAIL);
        enum rc rc = fs_read_file(dir, "f", 40000, &text, &err);
        bool hit = fault_passed() > i;
        fault_disarm();
        CHECK((rc != RC_OK) == hit && test_open_fds() == fds);
        CHECK(text.len == (hit ? 6 : 40006));
        if (!hit)
            break;
    }
}

TEST(a_directory_is_no_file_and_a_pipe_is_not_waited_for)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CHECK(mkdirat(dir, "d", 0700) == 0 && mkfifoat(dir, "fifo", 0600) == 0);
    CHECK_RC(fs_read_file(dir, "d", 100, &text, &err), RC_IO);
    CHECK_OK(fs_read_file(dir, "fifo", 100, &text, &err));
    CHECK(text.len == 0);
}

static void own_mounts(void)
{
    if (unshare(CLONE_NEWNS) < 0 || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        test_skip("machine: may not mount");
    CHECK(chdir(test_dir()) == 0);
}

/* Without STATX_ATTR_MOUNT_ROOT (Linux 5.8) nothing tells a bind mount from a directory. */
static void need_mount_root(void)
{
    struct statx st;
    CHECK(statx(AT_FDCWD, "/", 0, STATX_TYPE, &st) == 0);
    if (!(st.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT))
        test_skip("kernel: statx() does not tell mounts");
}

TEST(what_is_mounted_in_a_tree_survives_its_removal)
{
    struct err err = ERR_INIT;
    own_mounts();
    need_mount_root();
    CLEANUP(fd_closep) int dir = open_dir();
    CHECK(mkdir("volume", 0700) == 0 && mkdir("tree", 0700) == 0 && mkdir("tree/a", 0700) == 0 &&
          mkdir("tree/a/bind", 0700) == 0);
    CHECK_OK(fs_write_whole(dir, "volume/data", "x", 1, 0600, &err));
    CHECK(mount("volume", "tree/a/bind", NULL, MS_BIND, NULL) == 0);
    CHECK_RC(fs_remove_tree(dir, "tree", &err), RC_INVALID);
    CHECK_STR(err.msg, "'bind' is a mount point: not removed");
    CHECK(access("volume/data", F_OK) == 0);
    CHECK(umount("tree/a/bind") == 0);
    CHECK_OK(fs_remove_tree(dir, "tree", &err));
    CHECK(access("tree", F_OK) < 0 && access("volume/data", F_OK) == 0);
}

TEST(another_file_system_in_a_tree_survives_its_removal)
{
    struct err err = ERR_INIT;
    own_mounts();
    CLEANUP(fd_closep) int dir = open_dir();
    CHECK(mkdir("tree", 0700) == 0 && mkdir("tree/m", 0700) == 0);
    CHECK(mount("none", "tree/m", "tmpfs", 0, NULL) == 0);
    CHECK_OK(fs_write_whole(dir, "tree/m/data", "x", 1, 0600, &err));
    CHECK_RC(fs_remove_tree(dir, "tree", &err), RC_INVALID);
    CHECK(access("tree/m/data", F_OK) == 0);
    CHECK(umount("tree/m") == 0);
}

TEST(a_tree_that_is_a_mount_keeps_its_content)
{
    struct err err = ERR_INIT;
    own_mounts();
    CLEANUP(fd_closep) int dir = open_dir();
    CHECK(mkdir("tree", 0700) == 0 && mount("none", "tree", "tmpfs", 0, NULL) == 0);
    CHECK_OK(fs_write_whole(dir, "tree/data", "x", 1, 0600, &err));
    CHECK_RC(fs_remove_tree(dir, "tree", &err), RC_INVALID);
    CHECK(access("tree/data", F_OK) == 0);
    CHECK(umount("tree") == 0);
}

TEST(trees_are_removed_by_any_path_but_never_by_dots)
{
    static const char *const bad[] = {"", "/", ".", "..", "a/.", "a/..", "a/../"};
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CHECK(mkdirat(dir, "a", 0700) == 0);
    CHECK_OK(fs_write_whole(dir, "a/f", "x", 1, 0600, &err));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_RC(fs_remove_tree(dir, bad[i], &err), RC_INVALID);
    struct stat st;
    CHECK(fstatat(dir, "a/f", &st, 0) == 0);
    CHECK_OK(fs_remove_tree(dir, "none/at/all", &err));
    CHECK_OK(fs_remove_tree(dir, "a//", &err));
    CHECK(fstatat(dir, "a", &st, 0) < 0);
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/b", test_dir());
    CHECK_OK(fs_mkdirs(path, 0700, &err));
    CHECK_OK(fs_remove_tree(AT_FDCWD, path, &err));
    CHECK(fstatat(dir, "b", &st, 0) < 0);
}

TEST(a_link_in_the_place_of_a_tree_is_removed_itself)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CHECK(mkdirat(dir, "keep", 0700) == 0 && symlinkat("keep", dir, "link") == 0);
    CHECK_OK(fs_write_whole(dir, "keep/me", "x", 1, 0600, &err));
    CHECK_OK(fs_remove_tree(dir, "link", &err));
    struct stat st;
    CHECK(fstatat(dir, "link", &st, AT_SYMLINK_NOFOLLOW) < 0 &&
          fstatat(dir, "keep/me", &st, 0) == 0);
}

TEST(a_tree_too_deep_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf path = BUF_INIT;
    buf_adds(&path, test_dir());
    for (int i = 0; i < 140; i++)
        buf_adds(&path, "/d");
    CHECK_OK(fs_mkdirs(buf_str(&path), 0700, &err));
    CLEANUP(fd_closep) int dir = open_dir();
    CHECK_RC(fs_remove_tree(dir, "d", &err), RC_INVALID);
    CHECK_STR(err.msg, "'d' is too deep: not removed");
}

TEST(a_removal_that_fails_anywhere_can_be_done_again)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    for (unsigned i = 0;; i++) {
        CHECK(mkdirat(dir, "tree", 0700) == 0 && mkdirat(dir, "tree/a", 0700) == 0);
        CHECK_OK(fs_write_whole(dir, "tree/a/f", "x", 1, 0600, &err));
        int fds = test_open_fds();
        fault_arm(i, FAULT_FAIL);
        enum rc rc = fs_remove_tree(dir, "tree", &err);
        bool hit = fault_passed() > i;
        fault_disarm();
        CHECK(test_open_fds() == fds);
        CHECK(hit || rc == RC_OK); /* a failed unlink of a directory is only the question */
        CHECK_OK(fs_remove_tree(dir, "tree", &err));
        struct stat st;
        CHECK(fstatat(dir, "tree", &st, 0) < 0);
        if (!hit)
            break;
    }
}

TEST(a_mode_is_kept_whatever_the_umask)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    (void)umask(077);
    CHECK_OK(fs_write_atomic(dir, "f", "x", 1, 0644, &err));
    struct stat st;
    CHECK(fstatat(dir, "f", &st, 0) == 0 && (st.st_mode & 07777) == 0644);
    CHECK_OK(fs_write_whole(dir, "f", "", 0, 0600, &err));
    CHECK(fstatat(dir, "f", &st, 0) == 0 && (st.st_mode & 07777) == 0600 && st.st_size == 0);
}

TEST(a_copied_file_is_whole_or_as_it_was)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CLEANUP(buf_done) struct buf big = BUF_INIT;
    for (int i = 0; i < 30000; i++)
        buf_addf(&big, "line %d\n", i);
    CHECK_OK(fs_write_whole(dir, "from", big.data, big.len, 0600, &err));
    CHECK_OK(fs_write_whole(dir, "to", "old", 3, 0600, &err));
    CHECK_RC(fs_copy_file(dir, "none", dir, "to", 0644, &err), RC_NOT_FOUND);
    for (unsigned n = 0;; n++) {
        struct err why = ERR_INIT;
        CLEANUP(buf_done) struct buf now = BUF_INIT;
        fault_arm(n, FAULT_FAIL);
        enum rc rc = fs_copy_file(dir, "from", dir, "to", 0644, &why);
        fault_disarm();
        CHECK_OK(fs_read_file(dir, "to", BUF_DEFAULT_MAX, &now, &err));
        CHECK_STR(buf_str(&now), rc ? "old" : buf_str(&big));
        if (!rc)
            break;
    }
}

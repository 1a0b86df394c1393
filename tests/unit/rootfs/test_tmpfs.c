#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "rootfs/tmpfs.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int make_dir(const char *name)
{
    CLEANUP(fd_closep) int top = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CHECK(mkdirat(top, name, 0700) == 0);
    int fd = sys_openat(top, name, O_RDONLY | O_DIRECTORY, 0);
    CHECK(fd >= 0);
    return fd;
}

TEST(what_is_saved_is_loaded)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int from = make_dir("from");
    CLEANUP(fd_closep) int to = make_dir("to");
    CLEANUP(fd_closep) int out = make_dir("out");
    CHECK_OK(fs_write_whole(from, "file", "content", 7, 0640, &err));
    CHECK(mkdirat(from, "d", 0750) == 0 && symlinkat("../file", from, "d/link") == 0 &&
          mkfifoat(from, "d/fifo", 0600) == 0 && linkat(from, "file", from, "d/hard", 0) == 0);
    int sparse = sys_openat(from, "sparse", O_RDWR | O_CREAT, 0600);
    CHECK(sparse >= 0 && ftruncate(sparse, 64 << 20) == 0 &&
          pwrite(sparse, "end", 3, 40 << 20) == 3);
    (void)close(sparse);

    bool any = false;
    CHECK_OK(tmpfs_save(from, out, "a.tar", &any, &err));
    CHECK(any);
    CHECK_OK(tmpfs_load(out, "a.tar", to, &err));
    struct stat st, other;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CHECK_OK(fs_read_file(to, "file", 100, &text, &err));
    CHECK_STR(buf_str(&text), "content");
    CHECK(fstatat(to, "file", &st, 0) == 0 && (st.st_mode & 07777) == 0640 && st.st_nlink == 2);
    CHECK(fstatat(to, "d/hard", &other, 0) == 0 && other.st_ino == st.st_ino);
    CHECK(fstatat(to, "d/fifo", &st, 0) == 0 && S_ISFIFO(st.st_mode));
    CHECK(fstatat(to, "d", &st, 0) == 0 && (st.st_mode & 07777) == 0750);
    CHECK(fstatat(to, "sparse", &st, 0) == 0 && st.st_size == 64 << 20 && st.st_blocks < 2000);
}

TEST(nothing_to_save_makes_no_archive)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int from = make_dir("from");
    CLEANUP(fd_closep) int out = make_dir("out");
    bool any = true;
    CHECK_OK(tmpfs_save(from, out, "a.tar", &any, &err));
    CHECK(!any && faccessat(out, "a.tar", F_OK, 0) < 0);
}

/* One hostile entry after an optional symbolic link. */
static void make_hostile(int out, const char *link_to, const char *path, mode_t type)
{
    CLEANUP(fd_closep) int fd = sys_openat(out, "bad.tar", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    struct archive *a = archive_write_new();
    (void)archive_write_set_format_pax_restricted(a);
    CHECK(archive_write_open_fd(a, fd) == ARCHIVE_OK);
    struct archive_entry *e = archive_entry_new();
    if (link_to) {
        archive_entry_set_pathname(e, "link");
        archive_entry_set_filetype(e, AE_IFLNK);
        archive_entry_set_symlink(e, link_to);
        CHECK(archive_write_header(a, e) == ARCHIVE_OK);
        archive_entry_clear(e);
    }
    archive_entry_set_pathname(e, path);
    archive_entry_set_filetype(e, type);
    archive_entry_set_perm(e, 0644);
    archive_entry_set_size(e, type == AE_IFREG ? 3 : 0);
    CHECK(archive_write_header(a, e) >= ARCHIVE_WARN);
    if (type == AE_IFREG)
        CHECK(archive_write_data(a, "bad", 3) == 3);
    archive_entry_free(e);
    CHECK(archive_write_free(a) == ARCHIVE_OK);
}

TEST(hostile_archives_reach_nothing_outside)
{
    CLEANUP(mem_freep) char *outside = mem_asprintf("%s/outside", test_dir());
    CLEANUP(mem_freep) char *absolute = mem_asprintf("%s/outside/x", test_dir());
    CLEANUP(fd_closep) int victim = make_dir("outside");
    CLEANUP(fd_closep) int out = make_dir("out");
    CLEANUP(fd_closep) int to = make_dir("to");
    const struct {
        const char *link, *path;
        mode_t type;
    } cases[] = {{NULL, "../outside/x", AE_IFREG},   {NULL, "a/../../outside/x", AE_IFREG},
                 {NULL, absolute, AE_IFREG},         {outside, "link/x", AE_IFREG},
                 {"../outside", "link/x", AE_IFREG}, {NULL, "device", AE_IFCHR},
                 {NULL, "socket", AE_IFBLK}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        make_hostile(out, cases[i].link, cases[i].path, cases[i].type);
        (void)!tmpfs_load(out, "bad.tar", to, &err);
        CHECK(faccessat(victim, "x", F_OK, AT_SYMLINK_NOFOLLOW) < 0);
        CHECK(faccessat(to, "device", F_OK, 0) < 0 && faccessat(to, "socket", F_OK, 0) < 0);
    }
}

TEST(a_damaged_archive_is_an_error)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int out = make_dir("out");
    CLEANUP(fd_closep) int to = make_dir("to");
    CHECK_OK(fs_write_whole(out, "bad.tar", "this is no archive at all", 25, 0600, &err));
    CHECK_RC(tmpfs_load(out, "bad.tar", to, &err), RC_CORRUPT);
    CHECK_RC(tmpfs_load(out, "none.tar", to, &err), RC_NOT_FOUND);
}

#include "rootfs/tmpfs.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK ((size_t)128 << 10)

static void read_freep(struct archive **a)
{
    if (*a)
        (void)archive_read_free(STEAL(*a));
}

static void write_freep(struct archive **a)
{
    if (*a)
        (void)archive_write_free(STEAL(*a));
}

void tmpfs_entry_freep(struct archive_entry **e)
{
    archive_entry_free(STEAL(*e));
}

static void resolver_freep(struct archive_entry_linkresolver **r)
{
    archive_entry_linkresolver_free(STEAL(*r));
}

static enum rc archive_error(struct archive *a, const char *what, struct err *err)
{
    int number = archive_errno(a);
    const char *text = archive_error_string(a);
    enum rc rc = number == ENOSPC || number == EDQUOT ? RC_NO_SPACE : RC_IO;
    return err_set(err, rc, "%s: %s", what, text ? text : "unknown error");
}

/* ---- saving ---- */

/* The data of one file, holes left out, from the extents that the entry lists. */
static enum rc save_data(struct archive *out, struct archive_entry *e, uint8_t *block,
                         struct err *err)
{
    const char *path = archive_entry_sourcepath(e);
    CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0)
        return err_sys(err, "open '%s'", path);
    int64_t left = archive_entry_size(e);
    for (off_t at = 0; left > 0;) {
        size_t want = left < (int64_t)BLOCK ? (size_t)left : BLOCK;
        ssize_t n = pread(fd, block, want, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(err, "read '%s'", path);
        if (n == 0)
            return err_set(err, RC_IO, "'%s' became shorter while it was read", path);
        /* libarchive skips what the entry's sparse map calls a hole */
        if (archive_write_data(out, block, (size_t)n) < 0)
            return archive_error(out, "write the archive", err);
        at += n;
        left -= n;
    }
    return RC_OK;
}

static enum rc save_entry(struct archive *out, struct archive_entry *e, uint8_t *block,
                          struct err *err)
{
    if (archive_write_header(out, e) < ARCHIVE_WARN)
        return archive_error(out, "write the archive", err);
    if (archive_entry_filetype(e) != AE_IFREG || archive_entry_hardlink(e) ||
        archive_entry_size(e) <= 0)
        return RC_OK;
    return save_data(out, e, block, err);
}

/* "/proc/self/fd/7/a/b" becomes "./a/b". */
static void make_relative(struct archive_entry *e, size_t prefix)
{
    const char *path = archive_entry_pathname(e);
    size_t n = strlen(path);
    CLEANUP(mem_freep) char *relative = mem_asprintf(".%s", n > prefix ? path + prefix : "");
    archive_entry_set_pathname(e, relative);
}

struct filter {
    bool (*skip)(void *arg, const char *path, struct archive_entry *e);
    void *arg;
};

static bool is_left_out(struct archive_entry *e, const struct filter *f)
{
    const char *path = archive_entry_pathname(e);
    if (archive_entry_filetype(e) == AE_IFSOCK)
        return true;
    return f->skip && f->skip(f->arg, path[1] ? path + 2 : "", e);
}

static enum rc save_tree(struct archive *out, struct archive *disk, const char *root,
                         const struct filter *filter, bool *out_any, struct err *err)
{
    CLEANUP(mem_freep) uint8_t *block = mem_alloc(BLOCK);
    CLEANUP(resolver_freep)
    struct archive_entry_linkresolver *links = archive_entry_linkresolver_new();
    archive_entry_linkresolver_set_strategy(links, ARCHIVE_FORMAT_TAR_PAX_RESTRICTED);
    for (;;) {
        CLEANUP(tmpfs_entry_freep) struct archive_entry *e = archive_entry_new();
        struct archive_entry *spare = NULL;
        int r = archive_read_next_header2(disk, e);
        if (r == ARCHIVE_EOF)
            return RC_OK;
        if (r < ARCHIVE_WARN)
            return archive_error(disk, "read the file system", err);
        (void)archive_read_disk_descend(disk);
        bool is_root = strcmp(archive_entry_pathname(e), root) == 0;
        make_relative(e, strlen(root));
        if (is_left_out(e, filter))
            continue;
        *out_any = *out_any || !is_root;
        archive_entry_linkify(links, &e, &spare);
        enum rc rc = e ? save_entry(out, e, block, err) : RC_OK;
        if (rc)
            return rc;
    }
}

enum rc tmpfs_save(int dirfd, int outfd, const char *name, bool *out_any, struct err *err)
{
    return tmpfs_save_filtered(dirfd, outfd, name, NULL, NULL, out_any, err);
}

enum rc tmpfs_save_filtered(int dirfd, int outfd, const char *name,
                            bool (*skip)(void *arg, const char *path, struct archive_entry *e),
                            void *arg, bool *out_any, struct err *err)
{
    bool any = false;
    char root[64];
    const struct filter filter = {skip, arg};
    (void)snprintf(root, sizeof(root), "/proc/self/fd/%d", dirfd);
    CLEANUP(fd_closep) int fd = sys_openat(outfd, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return err_sys(err, "create '%s'", name);
    CLEANUP(read_freep) struct archive *disk = archive_read_disk_new();
    CLEANUP(write_freep) struct archive *out = archive_write_new();
    (void)archive_read_disk_set_symlink_hybrid(disk); /* the root is a link of /proc, no other */
    (void)archive_read_disk_set_behavior(disk, ARCHIVE_READDISK_NO_TRAVERSE_MOUNTS);
    (void)archive_write_set_format_pax_restricted(out);
    (void)archive_write_add_filter_none(out);
    enum rc rc = RC_OK;
    if (archive_write_open_fd(out, fd) != ARCHIVE_OK)
        rc = archive_error(out, "open the archive", err);
    else if (archive_read_disk_open(disk, root) != ARCHIVE_OK)
        rc = archive_error(disk, "read the file system", err);
    else
        rc = save_tree(out, disk, root, &filter, &any, err);
    if (!rc && archive_write_close(out) != ARCHIVE_OK)
        rc = archive_error(out, "write the archive", err);
    if (rc || !any)
        (void)unlinkat(outfd, name, 0);
    if (rc)
        return err_ctx(err, rc, "archive '%s'", name);
    *out_any = any;
    return RC_OK;
}

/* ---- loading ---- */

static enum rc check_path(const char *path, struct err *err)
{
    if (!path || path[0] == '/')
        return err_set(err, RC_CORRUPT, "the archive has a bad path");
    for (const char *p = path; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.')
            return err_set(err, RC_CORRUPT, "the archive has a path with '..'");
        p += n + (p[n] == '/');
    }
    return RC_OK;
}

static enum rc check_paths(struct archive_entry *e, struct err *err)
{
    const char *link = archive_entry_hardlink(e);
    enum rc rc = check_path(archive_entry_pathname(e), err);
    return !rc && link ? check_path(link, err) : rc;
}

/* The disk writer refuses links on the way by itself. */
static enum rc check_type(struct archive_entry *e, struct err *err)
{
    unsigned type = archive_entry_filetype(e);
    if (!archive_entry_hardlink(e) && type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK &&
        type != AE_IFIFO)
        return err_set(err, RC_CORRUPT, "the archive holds a device or socket");
    return RC_OK;
}

/* A warning of the disk writer is an owner, a time or an attribute that could not be set. */
static enum rc load_entry(struct archive *in, struct archive *disk, struct archive_entry *e,
                          struct err *err)
{
    if (archive_write_header(disk, e) != ARCHIVE_OK)
        return archive_error(disk, "extract", err);
    const void *data;
    size_t len;
    la_int64_t at;
    for (;;) {
        int r = archive_read_data_block(in, &data, &len, &at);
        if (r == ARCHIVE_EOF)
            break;
        if (r < ARCHIVE_WARN)
            return err_set(err, RC_CORRUPT, "the archive is damaged: %s", archive_error_string(in));
        if (archive_write_data_block(disk, data, len, at) < ARCHIVE_OK)
            return archive_error(disk, "extract", err);
    }
    return archive_write_finish_entry(disk) != ARCHIVE_OK ? archive_error(disk, "extract", err)
                                                          : RC_OK;
}

struct load {
    int fd, dirfd;
    enum rc (*before)(void *arg, const char *path, struct archive_entry *e, bool *out_skip,
                      struct err *err);
    void *arg;
    enum rc rc;
    struct err *err;
};

static enum rc ask(const struct load *l, struct archive_entry *e, bool *out_skip, struct err *err)
{
    const char *path = archive_entry_pathname(e);
    if (!l->before)
        return RC_OK;
    while (path[0] == '.' && path[1] == '/')
        path += 2;
    size_t n = strcmp(path, ".") == 0 ? 0 : strlen(path);
    while (n && path[n - 1] == '/')
        n--;
    CLEANUP(mem_freep) char *clean = mem_asprintf("%.*s", (int)n, path);
    return l->before(l->arg, clean, e, out_skip, err);
}

static enum rc load_all(const struct load *l, struct archive *in, struct archive *disk,
                        struct err *err)
{
    for (struct archive_entry *e;;) {
        bool skip = false;
        int r = archive_read_next_header(in, &e);
        if (r == ARCHIVE_EOF)
            return RC_OK;
        if (r < ARCHIVE_WARN)
            return err_set(err, RC_CORRUPT, "no archive of ours: %s", archive_error_string(in));
        enum rc rc = check_paths(e, err);
        if (!rc)
            rc = ask(l, e, &skip, err);
        if (!rc && skip)
            continue;
        if (!rc)
            rc = check_type(e, err);
        if (!rc)
            rc = load_entry(in, disk, e, err);
        if (rc) {
            const char *path = archive_entry_pathname(e);
            return err_ctx(err, rc, "'%.300s'", path ? path : "");
        }
    }
}

static void go_backp(int *fd)
{
    if (*fd >= 0)
        (void)!fchdir(*fd);
    fd_closep(fd);
}

/* Into the directory, with this thread alone.  Filters of system calls forbid that in containers;
 * then with the whole process, and back: whoever is so restricted has no other thread that would
 * mind. */
static enum rc enter(int dirfd, int *out_back, struct err *err)
{
    if (unshare(CLONE_FS) < 0) {
        *out_back = errno == EPERM ? sys_openat(AT_FDCWD, ".", O_RDONLY | O_DIRECTORY, 0) : -1;
        if (*out_back < 0)
            return err_sys(err, "enter the directory");
    }
    return fchdir(dirfd) < 0 ? err_sys(err, "enter the directory") : RC_OK;
}

static enum rc load_here(const struct load *l, struct err *err)
{
    CLEANUP(go_backp) int back = -1;
    enum rc rc = enter(l->dirfd, &back, err);
    if (rc)
        return rc;
    CLEANUP(read_freep) struct archive *in = archive_read_new();
    CLEANUP(write_freep) struct archive *disk = archive_write_disk_new();
    (void)archive_read_support_format_tar(in);
    (void)archive_write_disk_set_options(
        disk, ARCHIVE_EXTRACT_OWNER | ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_TIME |
                  ARCHIVE_EXTRACT_XATTR | ARCHIVE_EXTRACT_SPARSE | ARCHIVE_EXTRACT_UNLINK |
                  ARCHIVE_EXTRACT_SECURE_SYMLINKS | ARCHIVE_EXTRACT_SECURE_NODOTDOT |
                  ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS);
    if (archive_read_open_fd(in, l->fd, BLOCK) != ARCHIVE_OK)
        return err_set(err, RC_CORRUPT, "no archive: %s", archive_error_string(in));
    rc = load_all(l, in, disk, err);
    if (!rc && archive_write_close(disk) != ARCHIVE_OK)
        rc = archive_error(disk, "extract", err);
    return rc;
}

static void *load_thread(void *arg)
{
    struct load *l = arg;
    l->rc = load_here(l, l->err);
    return NULL;
}

enum rc tmpfs_load(int infd, const char *name, int dirfd, struct err *err)
{
    CLEANUP(fd_closep) int fd = sys_openat(infd, name, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0)
        return err_sys(err, "open '%s'", name);
    enum rc rc = tmpfs_load_stream(fd, dirfd, NULL, NULL, err);
    return rc ? err_ctx(err, rc, "extract '%s'", name) : RC_OK;
}

enum rc tmpfs_load_stream(int fd, int dirfd,
                          enum rc (*before)(void *arg, const char *path, struct archive_entry *e,
                                            bool *out_skip, struct err *err),
                          void *arg, struct err *err)
{
    /* The disk writer's own checks against links need relative paths, so the working directory must
     * be the target: that of one thread, which has its own. */
    struct load l = {.fd = fd, .dirfd = dirfd, .before = before, .arg = arg, .err = err};
    pthread_t thread;
    int bad = pthread_create(&thread, NULL, load_thread, &l);
    if (bad) {
        errno = bad;
        return err_sys(err, "start a thread");
    }
    (void)pthread_join(thread, NULL);
    return l.rc;
}

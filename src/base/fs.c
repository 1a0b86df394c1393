#include "base/fs.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/rand.h"
#include "base/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define TREE_DEPTH_MAX 128

static enum rc append_all(int fd, const char *path, size_t max, struct buf *out, struct err *err)
{
    char chunk[16384];
    size_t total = 0, n = 0;
    do {
        enum rc rc = sys_read_full(fd, chunk, sizeof(chunk), &n, err);
        if (rc)
            return err_ctx(err, rc, "'%s'", path);
        total += n;
        if (total > max)
            return err_set(err, RC_TOO_BIG, "'%s' has more than %zu bytes", path, max);
        buf_add(out, chunk, n);
        if (out->overflowed)
            return err_set(err, RC_TOO_BIG, "'%s' does not fit a buffer of %zu bytes", path,
                           buf_max(out));
    } while (n == sizeof(chunk));
    return RC_OK;
}

enum rc fs_read_file(int dirfd, const char *path, size_t max, struct buf *out, struct err *err)
{
    CLEANUP(fd_closep) int fd = sys_openat(dirfd, path, O_RDONLY | O_NOCTTY | O_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(err, "open '%s'", path);
    size_t before = out->len;
    bool overflowed = out->overflowed;
    enum rc rc = append_all(fd, path, max, out, err);
    if (rc) {
        buf_cut(out, before);
        out->overflowed = overflowed;
    }
    return rc;
}

/* The directory that holds what `path` names. */
static int open_parent(int dirfd, const char *path, int flags)
{
    const char *slash = strrchr(path, '/');
    CLEANUP(mem_freep)
    char *dir = slash ? mem_asprintf("%.*s", (int)(slash == path ? 1 : slash - path), path)
                      : mem_strdup(".");
    return sys_openat(dirfd, dir, flags | O_DIRECTORY, 0);
}

static int sync_parent(int dirfd, const char *path)
{
    CLEANUP(fd_closep) int fd = open_parent(dirfd, path, O_RDONLY);
    return fd < 0 ? -1 : sys_fsync(fd);
}

static enum rc copy_all(int from, int to, struct err *err)
{
    char chunk[65536];
    size_t n = 0;
    do {
        enum rc rc = sys_read_full(from, chunk, sizeof(chunk), &n, err);
        if (!rc)
            rc = sys_write_all(to, chunk, n, err);
        if (rc)
            return rc;
    } while (n == sizeof(chunk));
    return RC_OK;
}

/* The content is `data`, or, unless `from` is -1, what can be read from that. */
static enum rc write_renamed(int dirfd, const char *path, const void *data, size_t len, int from,
                             mode_t mode, bool durable, struct err *err)
{
    char random[9];
    rand_hex(random, 8);
    CLEANUP(mem_freep) char *temp = mem_asprintf("%s.tmp-%s", path, random);
    CLEANUP(fd_closep) int fd = sys_openat(dirfd, temp, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (fd < 0)
        return err_sys(err, "create '%s'", temp);
    enum rc rc = from >= 0 ? copy_all(from, fd, err) : sys_write_all(fd, data, len, err);
    if (!rc && fchmod(fd, mode) < 0)
        rc = err_sys(err, "chmod '%s'", temp);
    if (!rc && durable && sys_fsync(fd) < 0)
        rc = err_sys(err, "fsync '%s'", temp);
    if (!rc && sys_rename(dirfd, temp, path, 0) < 0)
        rc = err_sys(err, "rename to '%s'", path);
    if (rc) {
        (void)unlinkat(dirfd, temp, 0);
        return err_ctx(err, rc, "write '%s'", path);
    }
    if (durable && sync_parent(dirfd, path) < 0)
        return err_sys(err, "fsync the directory of '%s'", path);
    return RC_OK;
}

enum rc fs_write_atomic(int dirfd, const char *path, const void *data, size_t len, mode_t mode,
                        struct err *err)
{
    return write_renamed(dirfd, path, data, len, -1, mode, true, err);
}

enum rc fs_write_whole(int dirfd, const char *path, const void *data, size_t len, mode_t mode,
                       struct err *err)
{
    return write_renamed(dirfd, path, data, len, -1, mode, false, err);
}

enum rc fs_copy_file(int from_dir, const char *from, int to_dir, const char *to, mode_t mode,
                     struct err *err)
{
    CLEANUP(fd_closep) int fd = sys_openat(from_dir, from, O_RDONLY | O_NOCTTY | O_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(err, "open '%s'", from);
    return write_renamed(to_dir, to, NULL, 0, fd, mode, false, err);
}

enum rc fs_mkdirs(const char *path, mode_t mode, struct err *err)
{
    CLEANUP(mem_freep) char *copy = mem_strdup(path);
    for (char *p = copy + 1; *copy; p++) {
        bool last = *p == '\0';
        if (*p != '/' && !last)
            continue;
        *p = '\0';
        if (sys_mkdirat(AT_FDCWD, copy, mode) < 0 && errno != EEXIST)
            return err_sys(err, "make directory '%s'", copy);
        if (last)
            break;
        *p = '/';
    }
    struct stat st;
    if (stat(path, &st) < 0)
        return err_sys(err, "'%s'", path);
    return S_ISDIR(st.st_mode) ? RC_OK : err_set(err, RC_INVALID, "'%s' is no directory", path);
}

static enum rc remove_entry(int dirfd, const char *name, dev_t dev, unsigned depth,
                            struct err *err);

/* Whether an open directory is another file system's, or the same one's mounted here: then what is
 * in it is not ours.  Asked of the descriptor, so nobody can mount there in between. */
static enum rc check_no_mount(int fd, const char *name, dev_t dev, struct err *err)
{
    struct statx st;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &st) < 0)
        return err_sys(err, "stat '%s'", name);
    /* FIXME(kernel < 5.8): does not know STATX_ATTR_MOUNT_ROOT; bind mounts go unnoticed */
    if (makedev(st.stx_dev_major, st.stx_dev_minor) != dev ||
        st.stx_attributes & STATX_ATTR_MOUNT_ROOT)
        return err_set(err, RC_INVALID, "'%s' is a mount point: not removed", name);
    return RC_OK;
}

static enum rc empty_dir(int dirfd, const char *name, dev_t dev, unsigned depth, struct err *err)
{
    CLEANUP(fd_closep)
    int fd = sys_openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0)
        return err_sys(err, "open '%s'", name);
    enum rc rc = check_no_mount(fd, name, dev, err);
    if (rc)
        return rc;
    int inner = fd;
    DIR *dir = fdopendir(fd);
    if (!dir)
        return err_sys(err, "read '%s'", name);
    (void)fd_steal(&fd); /* closedir() closes it */
    for (const struct dirent *e; !rc && (e = readdir(dir));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rc = remove_entry(inner, e->d_name, dev, depth + 1, err);
    (void)closedir(dir);
    return rc;
}

/* NOLINTNEXTLINE(misc-no-recursion): bounded by TREE_DEPTH_MAX */
static enum rc remove_entry(int dirfd, const char *name, dev_t dev, unsigned depth, struct err *err)
{
    if (sys_unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
        return RC_OK;
    struct stat st;
    int unlink_errno = errno;
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode)) {
        errno = unlink_errno;
        return err_sys(err, "remove '%s'", name);
    }
    if (depth > TREE_DEPTH_MAX)
        return err_set(err, RC_INVALID, "'%s' is too deep: not removed", name);
    enum rc rc = empty_dir(dirfd, name, dev, depth, err);
    if (!rc && sys_unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        rc = err_sys(err, "remove directory '%s'", name);
    return rc;
}

enum rc fs_remove_tree(int dirfd, const char *path, struct err *err)
{
    CLEANUP(mem_freep) char *copy = mem_strdup(path);
    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
        copy[n - 1] = '\0';
    const char *slash = strrchr(copy, '/');
    const char *name = slash ? slash + 1 : copy;
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return err_set(err, RC_INVALID, "'%s' names no entry of a directory", path);
    CLEANUP(fd_closep) int parent = open_parent(dirfd, copy, O_PATH);
    struct stat st;
    if (parent < 0)
        return errno == ENOENT ? RC_OK : err_sys(err, "open the directory of '%s'", path);
    if (fstat(parent, &st) < 0)
        return err_sys(err, "stat the directory of '%s'", path);
    return remove_entry(parent, name, st.st_dev, 0, err);
}

enum rc fs_private_dir(int *out_fd, struct err *err)
{
    CLEANUP(fd_closep) int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
    if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "mode", "0700", 0) < 0 ||
        fsconfig(fs, FSCONFIG_SET_STRING, "size", "100%", 0) < 0 ||
        fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return err_sys(err, "make a file system in memory");
    CLEANUP(fd_closep)
    int mount = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (mount < 0)
        return err_sys(err, "mount a file system in memory");
    int dir = sys_openat(mount, ".", O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0)
        return err_sys(err, "open a file system in memory");
    *out_fd = dir;
    return RC_OK;
}

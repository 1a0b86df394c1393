#include "backend/backend.h"
#include "backend/drivers.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/rand.h"
#include "base/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STAGED ".up-" /* begins the name of an upload: no key has such a part */
#define STAGED_DIGITS 8
#define STAGED_OLD (24 * 3600L) /* seconds without a write after which its writer is dead */

struct local {
    struct backend base;
    int dir;
};

struct upload {
    struct backend_upload base;
    int dir; /* the directory that the key lies in */
    int fd;
    char name[sizeof(STAGED) + 16];
    char last[BACKEND_KEY_MAX + 1]; /* last part of the key */
};

struct object {
    struct backend_object base;
    int fd;
};

/* ---- writing ---- */

/* Make a directory and make it last; one that is there is fine. */
static enum rc make_dir(int parent, const char *name, int *out, struct err *err)
{
    if (sys_mkdirat(parent, name, 0700) == 0) {
        if (sys_fsync(parent) < 0)
            return err_sys(err, "fsync the parent of '%s'", name);
    } else if (errno != EEXIST) {
        return err_sys(err, "make directory '%s'", name);
    }
    int fd = sys_openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0)
        return err_sys(err, "open directory '%s'", name);
    *out = fd;
    return RC_OK;
}

/* The directory of a key, made where it is not there, and the key's last part. */
static enum rc open_parent(struct local *l, const char *key, int *out,
                           char last[BACKEND_KEY_MAX + 1], struct err *err)
{
    char part[BACKEND_KEY_MAX + 1];
    CLEANUP(fd_closep) int dir = sys_openat(l->dir, ".", O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0)
        return err_sys(err, "open the directory");
    for (const char *slash; (slash = strchr(key, '/')); key = slash + 1) {
        int next = -1;
        memcpy(part, key, (size_t)(slash - key));
        part[slash - key] = '\0';
        enum rc rc = make_dir(dir, part, &next, err);
        if (rc)
            return rc;
        fd_closep(&dir);
        dir = next;
    }
    memcpy(last, key, strlen(key) + 1);
    *out = fd_steal(&dir);
    return RC_OK;
}

static void local_abort(struct backend_upload *base)
{
    struct upload *u = (struct upload *)base;
    if (u->fd >= 0)
        (void)unlinkat(u->dir, u->name, 0);
    fd_closep(&u->fd);
    fd_closep(&u->dir);
    free(u);
}

static enum rc local_begin(struct backend *b, const char *key, struct backend_upload **out,
                           struct err *err)
{
    struct upload *u = mem_zalloc(sizeof(*u));
    char random[STAGED_DIGITS + 1];
    u->dir = u->fd = -1;
    enum rc rc = open_parent((struct local *)b, key, &u->dir, u->last, err);
    if (!rc) {
        rand_hex(random, STAGED_DIGITS);
        (void)snprintf(u->name, sizeof(u->name), STAGED "%s", random);
        u->fd = sys_openat(u->dir, u->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
        if (u->fd < 0)
            rc = err_sys(err, "create");
    }
    if (rc) {
        local_abort(&u->base);
        return rc;
    }
    *out = &u->base;
    return RC_OK;
}

static enum rc local_append(struct backend_upload *base, const void *data, size_t len,
                            struct err *err)
{
    return sys_write_all(((struct upload *)base)->fd, data, len, err);
}

static enum rc local_commit(struct backend_upload *base, struct err *err)
{
    struct upload *u = (struct upload *)base;
    if (sys_fsync(u->fd) < 0)
        return err_sys(err, "fsync");
    if (u->base.replace ? sys_rename(u->dir, u->name, u->last, 0) < 0
                        : sys_link_fd(u->fd, u->dir, u->last) < 0)
        return err_sys(err, "commit");
    if (!u->base.replace)
        (void)unlinkat(u->dir, u->name, 0);
    fd_closep(&u->fd);
    if (sys_fsync(u->dir) < 0)
        return err_sys(err, "fsync directory"); /* there, but for how long is not known */
    return RC_OK;
}

/* ---- reading ---- */

static enum rc local_open(struct backend *b, const char *key, struct backend_object **out,
                          struct err *err)
{
    struct stat st;
    CLEANUP(fd_closep)
    int fd = sys_open_in_root(((struct local *)b)->dir, key, O_RDONLY | O_NONBLOCK, 0,
                              RESOLVE_NO_SYMLINKS);
    if (fd < 0)
        return err_sys(err, "open");
    if (fstat(fd, &st) < 0)
        return err_sys(err, "stat");
    if (!S_ISREG(st.st_mode))
        return err_set(err, RC_CORRUPT, "it is no file");
    struct object *o = mem_zalloc(sizeof(*o));
    o->fd = fd_steal(&fd);
    o->base.size = (uint64_t)st.st_size;
    *out = &o->base;
    return RC_OK;
}

static enum rc local_read(struct backend_object *base, uint64_t offset, void *data, size_t len,
                          struct err *err)
{
    const struct object *o = (const struct object *)base;
    size_t got = 0;
    while (got < len) {
        ssize_t n = pread(o->fd, (char *)data + got, len - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(err, "read");
        if (n == 0)
            return err_set(err, RC_CORRUPT, "it has become shorter");
        got += (size_t)n;
    }
    return RC_OK;
}

static void local_close(struct backend_object *base)
{
    struct object *o = (struct object *)base;
    fd_closep(&o->fd);
    free(o);
}

static enum rc local_stat(struct backend *b, const char *key, struct backend_info *out,
                          struct err *err)
{
    struct backend_object *o = NULL;
    struct stat st;
    enum rc rc = local_open(b, key, &o, err);
    if (rc || !o)
        return rc;
    if (fstat(((struct object *)o)->fd, &st) < 0)
        rc = err_sys(err, "stat");
    local_close(o);
    if (rc)
        return rc;
    out->size = (uint64_t)st.st_size;
    (void)snprintf(out->tag, sizeof(out->tag), "%jx-%jx.%lx", (uintmax_t)st.st_ino,
                   (uintmax_t)st.st_mtim.tv_sec, (unsigned long)st.st_mtim.tv_nsec);
    return RC_OK;
}

/* ---- listing ---- */

struct listing {
    const char *prefix;
    backend_visit *visit;
    void *arg;
};

/* Names that only an upload has: the directory may be one in which others keep things, too. */
static bool is_staged(const char *name)
{
    size_t n = sizeof(STAGED) - 1;
    return strncmp(name, STAGED, n) == 0 && strlen(name) == n + STAGED_DIGITS &&
           strspn(name + n, "0123456789abcdef") == STAGED_DIGITS;
}

/* What a dead writer has left. */
static void sweep(int dir, const char *name, const struct stat *st)
{
    if (S_ISREG(st->st_mode) && time(NULL) - st->st_mtime > STAGED_OLD)
        (void)unlinkat(dir, name, 0);
}

/* Whether a directory may hold keys with the prefix. */
static bool leads_to(const char *path, const char *prefix)
{
    size_t a = strlen(path), b = strlen(prefix);
    return strncmp(path, prefix, a < b ? a : b) == 0;
}

static enum rc list_dir(int parent, const char *name, const char *path, unsigned depth,
                        const struct listing *l, struct err *err);

static enum rc list_one(int dir, const char *name, const char *path, unsigned depth,
                        const struct listing *l, struct err *err)
{
    char key[BACKEND_KEY_MAX + 2];
    struct stat st;
    int n = snprintf(key, sizeof(key), "%s%s%s", path, *path ? "/" : "", name);
    if (n > BACKEND_KEY_MAX || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return RC_OK; /* not ours, or just removed */
    if (is_staged(name)) {
        sweep(dir, name, &st);
        return RC_OK;
    }
    if (backend_check_key(key, NULL) != RC_OK || !leads_to(key, l->prefix))
        return RC_OK;
    if (S_ISDIR(st.st_mode))
        return list_dir(dir, name, key, depth + 1, l, err);
    if (!S_ISREG(st.st_mode) || strncmp(key, l->prefix, strlen(l->prefix)) != 0)
        return RC_OK;
    return l->visit(l->arg, key, (uint64_t)st.st_size, err);
}

static enum rc list_dir(int parent, const char *name, const char *path, unsigned depth,
                        const struct listing *l, struct err *err)
{
    int fd = sys_openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir && errno == ENOENT && depth > 0)
        return RC_OK;
    if (!dir) {
        enum rc bad = err_sys(err, "read directory '%s'", path);
        fd_closep(&fd);
        return bad;
    }
    enum rc rc = RC_OK;
    for (const struct dirent *e; !rc && depth < 16 && (e = readdir(dir));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rc = list_one(fd, e->d_name, path, depth, l, err);
    (void)closedir(dir);
    return rc;
}

static enum rc local_list(struct backend *b, const char *prefix, backend_visit *visit, void *arg,
                          struct err *err)
{
    struct listing l = {prefix, visit, arg};
    return list_dir(((struct local *)b)->dir, ".", "", 0, &l, err);
}

static enum rc local_remove(struct backend *b, const char *key, struct err *err)
{
    if (sys_unlinkat(((struct local *)b)->dir, key, 0) < 0)
        return err_sys(err, "unlink");
    return RC_OK;
}

static void local_free(struct backend *b)
{
    struct local *l = (struct local *)b;
    fd_closep(&l->dir);
    free(l);
}

static const struct backend_ops local_ops = {.name = "local",
                                             .begin = local_begin,
                                             .append = local_append,
                                             .commit = local_commit,
                                             .abort = local_abort,
                                             .open = local_open,
                                             .read = local_read,
                                             .close = local_close,
                                             .stat = local_stat,
                                             .list = local_list,
                                             .remove = local_remove,
                                             .free = local_free};

enum rc backend_local_open(int dir, struct backend **out, struct err *err)
{
    CLEANUP(fd_closep) int own = sys_openat(dir, ".", O_RDONLY | O_DIRECTORY, 0);
    if (own < 0)
        return err_sys(err, "open the storage directory");
    struct local *l = mem_zalloc(sizeof(*l));
    *l = (struct local){.base.ops = &local_ops, .dir = fd_steal(&own)};
    *out = &l->base;
    return RC_OK;
}

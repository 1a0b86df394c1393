#include "store/store.h"

#include "backend/cache.h"
#include "backend/drivers.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/name.h"
#include "store/objects.h"
#include "store/workingset.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

/* ---- opening ---- */

static enum rc open_directory(const char *path, struct store **out, struct err *err)
{
    enum rc rc = fs_mkdirs(path, 0700, err);
    if (rc == RC_NOT_FOUND)
        return err_set(err, rc,
                       "open store: no directory can be made at '%.300s'; give a path on a disk",
                       path);
    if (rc)
        return err_ctx(err, rc, "open store");
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0)
        return err_sys(err, "open store '%s'", path);
    char *absolute = realpath(path, NULL);
    if (!absolute)
        return err_sys(err, "store '%s'", path);
    struct store *s = mem_zalloc(sizeof(*s));
    *s = (struct store){.dir = fd_steal(&dir), .path = absolute, .spool = {.dir = -1}};
    rc = backend_local_open(s->dir, &s->backend, err);
    if (rc)
        store_freep(&s);
    else
        *out = s;
    return rc;
}

/* What an URL names: a directory, whose path is returned, or object storage (NULL). */
static const char *directory_of(const char *url)
{
    if (strncmp(url, "file://", 7) == 0)
        return url + 7;
    return strstr(url, "://") ? NULL : url;
}

static enum rc open_backend(const char *url, const struct backend_options *options,
                            struct backend **out, struct err *err)
{
    if (strncmp(url, "object://", 9) != 0)
        return backend_open_url(url, options, out, err);
    if (url[9] != '/')
        return err_set(err, RC_INVALID, "'%.200s' is relative; write object:///PATH", url);
    enum rc rc = fs_mkdirs(url + 9, 0700, err);
    if (rc)
        return rc;
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, url + 9, O_RDONLY | O_DIRECTORY, 0);
    return dir < 0 ? err_sys(err, "open '%s'", url + 9) : backend_local_open(dir, out, err);
}

enum rc store_open_backend(struct backend *b, const char *path, const char *tmp, struct store **out,
                           struct err *err)
{
    CLEANUP(store_freep) struct store *s = mem_zalloc(sizeof(*s));
    *s = (struct store){
        .dir = -1, .path = mem_strdup(path), .backend = b, .remote = true, .spool = {.dir = -1}};
    for (size_t n = strlen(s->path); n > 1 && s->path[n - 1] == '/' && s->path[n - 2] != '/'; n--)
        s->path[n - 1] = '\0';
    enum rc rc = spool_open(tmp, &s->spool, err);
    if (rc)
        return err_ctx(err, rc, "open store '%s'", path);
    s->dir = s->spool.dir;
    *out = STEAL(s);
    return RC_OK;
}

/* In front of *b, which is freed where that cannot be. */
static enum rc add_cache(const char *url, const struct store_options *o, struct backend **b,
                         struct err *err)
{
    const struct cache_options c = {.dir = o->cache, .bytes = o->cache_bytes, .storage = url};
    struct backend *cached = NULL;
    enum rc rc = backend_cache_open(*b, &c, &cached, err);
    if (rc)
        backend_freep(b);
    else
        *b = cached;
    return rc;
}

enum rc store_open_with(const char *url, const struct store_options *options, struct store **out,
                        struct err *err)
{
    static const struct store_options none = {.tmp = NULL};
    const struct store_options *o = options ? options : &none;
    const char *path = directory_of(url);
    if (path && path != url && *path != '/')
        return err_set(err, RC_INVALID, "'%.200s' is relative; write file:///PATH, or a path", url);
    if (path)
        return open_directory(path, out, err);
    struct backend *b = NULL;
    enum rc rc = open_backend(url, &o->backend, &b, err);
    if (!rc && o->cache)
        rc = add_cache(url, o, &b, err);
    return rc ? err_ctx(err, rc, "open store") : store_open_backend(b, url, o->tmp, out, err);
}

const char *store_directory(const char *url)
{
    return strncmp(url, "object://", 9) == 0 ? url + 9 : directory_of(url);
}

enum rc store_open(const char *url, struct store **out, struct err *err)
{
    return store_open_with(url, NULL, out, err);
}

bool store_is_remote(const struct store *s)
{
    return s->remote;
}

void store_use_vault(struct store *s, const struct vault *v)
{
    s->vault = v;
}

void store_allow_clear(struct store *s)
{
    s->clear_allowed = true;
}

struct backend *store_backend(const struct store *s)
{
    return s->backend;
}

void store_freep(struct store **p)
{
    struct store *s = STEAL(*p);
    if (!s)
        return;
    backend_freep(&s->backend);
    if (!s->remote)
        fd_closep(&s->dir);
    spool_done(&s->spool);
    free(s->path);
    free(s);
}

const char *store_path(const struct store *s)
{
    return s->path;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool looks_like_checkpoint(const struct store *s, const char *name)
{
    struct stat st;
    enum identity i = IDENTITY_CHECKPOINT; /* also where it cannot be told: to find it says why */
    return name_is_id(name) && fstatat(s->dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISDIR(st.st_mode) &&
           (identity_of(s->dir, name, &i, NULL) != RC_OK || i == IDENTITY_CHECKPOINT);
}

static enum rc list_directory(const struct store *s, char ***out_ids, size_t *out_n,
                              struct err *err)
{
    int fd = sys_openat(s->dir, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        enum rc bad = err_sys(err, "read %s", s->path);
        fd_closep(&fd);
        return bad;
    }
    size_t n = 0, cap = 16;
    char **ids = mem_alloc(cap * sizeof(*ids));
    for (const struct dirent *e; (e = readdir(dir));) {
        if (!looks_like_checkpoint(s, e->d_name))
            continue;
        if (n + 1 == cap)
            ids = mem_realloc(ids, (cap *= 2) * sizeof(*ids));
        ids[n++] = mem_strdup(e->d_name);
    }
    (void)closedir(dir);
    ids[n] = NULL;
    *out_ids = ids;
    *out_n = n;
    return RC_OK;
}

enum rc store_list(struct store *s, char ***out_ids, struct err *err)
{
    size_t n = 0;
    enum rc rc =
        s->remote ? objects_list(s, out_ids, &n, err) : list_directory(s, out_ids, &n, err);
    if (!rc)
        qsort(*out_ids, n, sizeof(**out_ids), compare);
    return rc;
}

void store_free_ids(char **ids)
{
    for (char **p = ids; p && *p; p++)
        free(*p);
    free(ids);
}

char *store_location(const struct store *s, const char *id)
{
    char key[BACKEND_KEY_MAX + 1];
    if (!s->remote)
        return mem_asprintf("%s/%s", s->path, id);
    if (objects_key(id, key, NULL) != RC_OK)
        return NULL;
    size_t n = strcspn(s->path, "?"); /* settings come last */
    const char *slash = n > 0 && s->path[n - 1] == '/' ? "" : "/";
    return mem_asprintf("%.*s%s%s%s", (int)n, s->path, slash, key, s->path + n);
}

enum rc store_identify(struct store *s, const char *id, enum identity *out, struct err *err)
{
    return s->remote ? objects_identify(s, id, out, err) : identity_of(s->dir, id, out, err);
}

enum rc store_say_absent(const struct store *s, const char *id, enum identity there,
                         struct err *err)
{
    return err_set(err, RC_NOT_FOUND, "no checkpoint '%s' in %s%s", id, s->path,
                   there == IDENTITY_FOREIGN
                       ? ": what has this name is no checkpoint of chrek's, and is left alone"
                       : "");
}

enum rc store_say_foreign(const struct store *s, const char *id, struct err *err)
{
    return err_set(err, RC_INVALID,
                   "'%s' in %s is no checkpoint of chrek's, and is left alone; choose another id, "
                   "or another store",
                   id, s->path);
}

enum rc store_find(struct store *s, const char *id, struct store_entry **out, struct err *err)
{
    enum identity i = IDENTITY_NOTHING;
    enum rc rc = name_check_id(id, err);
    if (rc)
        return rc;
    if (s->remote)
        return objects_find(s, id, out, err);
    CLEANUP(fd_closep) int dir = sys_openat(s->dir, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (dir < 0) {
        enum rc bad = err_sys(err, "open checkpoint '%s'", id);
        bool told = identity_of(s->dir, id, &i, NULL) == RC_OK && i != IDENTITY_CHECKPOINT;
        return told ? store_say_absent(s, id, i, err) : bad;
    }
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/%s", s->path, id);
    rc = store_adopt(fd_steal(&dir), path, s->vault, out, err);
    if (rc && identity_of(s->dir, id, &i, NULL) == RC_OK && i != IDENTITY_CHECKPOINT)
        return store_say_absent(s, id, i, err);
    return rc;
}

enum rc store_read_file(struct store *s, const char *id, const char *name, size_t max,
                        struct buf *out, struct err *err)
{
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/%s", id, name);
    return s->remote ? objects_read_file(s, id, name, max, out, err)
                     : fs_read_file(s->dir, path, max, out, err);
}

enum rc store_take_turn(const struct store *s, bool alone, int *out_fd, struct err *err)
{
    CLEANUP(fd_closep) int fd = sys_openat(s->dir, ".", O_RDONLY | O_DIRECTORY, 0);
    int got = -1;
    do
        got = fd < 0 ? -1 : flock(fd, alone ? LOCK_EX : LOCK_SH);
    while (got < 0 && errno == EINTR);
    if (got < 0 && alone)
        return err_sys(err, "lock %s", s->path);
    *out_fd = fd_steal(&fd);
    return RC_OK;
}

enum rc store_remove_unused(struct store *s, const char *name, struct err *err)
{
    CLEANUP(fd_closep) int fd = sys_openat(s->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        return RC_OK;
    return fs_remove_tree(s->dir, name, err);
}

enum rc store_delete(struct store *s, const char *id, struct err *err)
{
    enum rc rc = name_check_id(id, err);
    if (rc)
        return rc;
    if (s->remote)
        return objects_delete(s, id, err);
    enum identity i;
    rc = identity_of(s->dir, id, &i, err);
    if (rc)
        return rc;
    if (i != IDENTITY_CHECKPOINT)
        return store_say_absent(s, id, i, err);
    CLEANUP(mem_freep) char *gone = identity_staging_name(id);
    CLEANUP(fd_closep) int turn = -1;
    (void)store_take_turn(s, false, &turn, NULL);
    if (sys_rename(s->dir, id, gone, RENAME_NOREPLACE) < 0)
        return errno == ENOENT ? store_say_absent(s, id, IDENTITY_NOTHING, err)
                               : err_sys(err, "delete '%s'", id);
    workingset_remove(&(struct workingset_place){s->dir, (char *)(uintptr_t)id, NULL});
    if (sys_fsync(s->dir) < 0)
        return err_sys(err, "fsync %s", s->path);
    rc = store_remove_unused(s, gone, err);
    return rc ? err_ctx(err, rc, "delete '%s'", id) : RC_OK;
}

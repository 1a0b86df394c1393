#include "exchange/export.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/rand.h"
#include "base/sys.h"
#include "exchange/image.h"
#include "exchange/parts.h"
#include "exchange/tarball.h"
#include "store/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Where something is made before it gets its name. */
struct place {
    int folder;
    const char *name; /* in it; of the options */
    char temp[64];
    bool made;
};

static void place_done(struct place *p)
{
    if (p->made)
        (void)!fs_remove_tree(p->folder, p->temp, NULL);
    fd_closep(&p->folder);
}

/* Whether what is there may make way: a file for a file; of directories only what chrek and those
 * who read its exports make. */
static enum rc check_replaced(const struct export_options *o, const struct place *p,
                              const struct stat *st, struct err *err)
{
    enum identity what = IDENTITY_FOREIGN;
    struct stat layout;
    bool wants_file = o->kind == EXPORT_ARCHIVE || o->tar;
    if (wants_file && S_ISREG(st->st_mode))
        return RC_OK;
    if (!wants_file && S_ISDIR(st->st_mode)) {
        enum rc rc = identity_of(p->folder, p->name, &what, err);
        if (rc)
            return rc;
        CLEANUP(fd_closep)
        int dir = sys_openat(p->folder, p->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
        if (what != IDENTITY_FOREIGN || (dir >= 0 && fstatat(dir, "oci-layout", &layout, 0) == 0))
            return RC_OK;
    }
    return err_set(err, RC_EXISTS,
                   "'%s' is there and is nothing that chrek writes; choose another "
                   "path, or remove it yourself",
                   o->path);
}

static enum rc place_open(const struct export_options *o, struct place *p, struct err *err)
{
    struct stat st;
    const char *slash = strrchr(o->path, '/');
    CLEANUP(mem_freep)
    char *folder =
        slash ? mem_asprintf("%.*s", (int)(slash == o->path ? 1 : slash - o->path), o->path)
              : mem_strdup(".");
    p->name = slash ? slash + 1 : o->path;
    if (!*p->name || strcmp(p->name, ".") == 0 || strcmp(p->name, "..") == 0)
        return err_set(err, RC_INVALID, "'%s' names no file", o->path);
    p->folder = sys_openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0);
    if (p->folder < 0)
        return err_sys(err, "open '%s'", folder);
    if (fstatat(p->folder, p->name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        enum rc rc = o->replace ? check_replaced(o, p, &st, err)
                                : err_set(err, RC_EXISTS, "'%s' is already there", o->path);
        if (rc)
            return rc;
    }
    char random[9];
    rand_hex(random, 8);
    (void)snprintf(p->temp, sizeof(p->temp), ".chrek-export-%s", random);
    return RC_OK;
}

/* Give what was made its name: at once, also in another's place. */
static enum rc place_publish(struct place *p, bool replace, struct err *err)
{
    if (sys_rename(p->folder, p->temp, p->name, RENAME_NOREPLACE) == 0)
        p->made = false;
    else if (errno == EEXIST && replace && sys_rename(p->folder, p->temp, p->name, RENAME_EXCHANGE))
        return err_sys(err, "rename to '%s'", p->name);
    else if (errno == EEXIST && !replace)
        return err_set(err, RC_EXISTS, "'%s' is already there", p->name);
    else if (errno != EEXIST)
        return err_sys(err, "rename to '%s'", p->name);
    return sys_fsync(p->folder) < 0 ? err_sys(err, "fsync the folder of '%s'", p->name) : RC_OK;
}

static enum rc make_file(struct place *p, int *out, struct err *err)
{
    *out = sys_openat(p->folder, p->temp, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (*out < 0)
        return err_sys(err, "make a file beside '%s'", p->name);
    p->made = true;
    return RC_OK;
}

static enum rc make_dir(struct place *p, const char *name, int *out, struct err *err)
{
    if (sys_mkdirat(p->folder, name, 0700) < 0)
        return err_sys(err, "make a directory beside '%s'", p->name);
    p->made = true;
    *out = sys_openat(p->folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    return *out < 0 ? err_sys(err, "open a directory beside '%s'", p->name) : RC_OK;
}

/* ---- an archive ---- */

static enum rc write_archive(const struct parts *parts, const struct export_options *o,
                             struct place *p, struct err *err)
{
    struct tarball t;
    int made = -1;
    enum rc rc = make_file(p, &made, err);
    CLEANUP(fd_closep) int fd = made;
    if (!rc)
        rc = tarball_write(parts, fd, o->compression, o->done, &t, err);
    if (!rc && sys_fsync(fd) < 0)
        rc = err_sys(err, "fsync '%s'", p->name);
    return rc;
}

/* ---- an image ---- */

static enum rc tar_image(int dir, struct place *p, struct err *err)
{
    struct place whole = {.folder = p->folder, .name = p->name};
    int made = -1;
    (void)snprintf(whole.temp, sizeof(whole.temp), "%.40s.tar", p->temp);
    enum rc rc = make_file(&whole, &made, err);
    CLEANUP(fd_closep) int fd = made;
    if (!rc)
        rc = tarball_of_tree(dir, fd, err);
    if (!rc && sys_fsync(fd) < 0)
        rc = err_sys(err, "fsync '%s'", p->name);
    /* From here on the file is what is made. */
    if (!rc)
        rc = fs_remove_tree(p->folder, p->temp, err);
    if (!rc && sys_rename(p->folder, whole.temp, p->temp, 0) < 0)
        rc = err_sys(err, "rename the archive of '%s'", p->name);
    if (rc && whole.made)
        (void)sys_unlinkat(p->folder, whole.temp, 0);
    return rc;
}

static enum rc write_image(const struct parts *parts, const struct export_options *o,
                           struct place *p, struct err *err)
{
    int made = -1;
    enum rc rc = make_dir(p, p->temp, &made, err);
    CLEANUP(fd_closep) int dir = made;
    if (!rc)
        rc = image_write(parts, dir, o, err);
    return rc || !o->tar ? rc : tar_image(dir, p, err);
}

/* ---- a directory ---- */

struct filling {
    int fd;
    uint64_t *done;
};

static enum rc append(void *arg, const void *data, size_t len, struct err *err)
{
    const struct filling *f = arg;
    enum rc rc = sys_write_all(f->fd, data, len, err);
    if (!rc && f->done)
        (void)__atomic_fetch_add(f->done, len, __ATOMIC_RELAXED);
    return rc;
}

static enum rc make_parents(int dir, const char *path, struct err *err)
{
    for (const char *slash = path; (slash = strchr(slash, '/')); slash++) {
        CLEANUP(mem_freep) char *folder = mem_asprintf("%.*s", (int)(slash - path), path);
        if (sys_mkdirat(dir, folder, 0700) < 0 && errno != EEXIST)
            return err_sys(err, "make '%s'", folder);
    }
    return RC_OK;
}

/* Paths are clean, see origin.h; the directory is ours. */
/* NOLINTNEXTLINE(readability-non-const-parameter): `done` is counted up while parts are read */
static enum rc fill(const struct parts *parts, int dir, uint64_t *done, struct err *err)
{
    enum rc rc = RC_OK;
    for (size_t i = 0; !rc && i < parts->n; i++) {
        const struct part *p = &parts->list[i];
        rc = make_parents(dir, p->path, err);
        if (rc)
            return rc;
        CLEANUP(fd_closep)
        int fd = sys_open_in_root(dir, p->path, O_WRONLY | O_CREAT | O_EXCL, p->mode, 0);
        if (fd < 0)
            return err_sys(err, "make '%s'", p->path);
        struct filling f = {fd, done};
        rc = part_read(parts, p, append, &f, err);
        if (!rc && sys_fsync(fd) < 0)
            rc = err_sys(err, "fsync '%s'", p->path);
    }
    return rc;
}

/* As a checkpoint of a store of one, so that whatever reads checkpoint directories can use it. */
static enum rc commit_directory(struct parts *parts, const struct export_options *o,
                                struct err *err)
{
    const char *slash = strrchr(o->path, '/');
    CLEANUP(mem_freep)
    char *folder = slash ? mem_asprintf("%.*s/", (int)(slash - o->path), o->path) : mem_strdup(".");
    CLEANUP(store_freep) struct store *to = NULL;
    CLEANUP(store_abortp) struct store_staging *g = NULL;
    enum rc rc = store_open(folder, &to, err);
    if (rc)
        return rc;
    store_allow_clear(to);
    rc = store_begin(to, slash ? slash + 1 : o->path, !o->replace, &g, err);
    if (!rc)
        rc = fill(parts, store_staging_fd(g), o->done, err);
    return rc ? rc : store_commit(g, &parts->meta, o->replace, err);
}

static enum rc write_directory(const struct parts *parts, const struct export_options *o,
                               struct place *p, struct err *err)
{
    int made = -1;
    enum rc rc = make_dir(p, p->temp, &made, err);
    CLEANUP(fd_closep) int dir = made;
    return rc ? rc : fill(parts, dir, o->done, err);
}

/* ---- all ---- */

static enum rc export_parts(struct parts *parts, const struct export_options *o, struct err *err)
{
    CLEANUP(place_done) struct place p = {.folder = -1};
    enum rc rc = place_open(o, &p, err);
    if (!rc && o->kind == EXPORT_DIRECTORY && !parts->origin.engine && parts->meta.ours)
        return commit_directory(parts, o, err);
    if (!rc && o->kind == EXPORT_DIRECTORY)
        rc = write_directory(parts, o, &p, err);
    else if (!rc && o->kind == EXPORT_IMAGE)
        rc = write_image(parts, o, &p, err);
    else if (!rc)
        rc = write_archive(parts, o, &p, err);
    return rc ? rc : place_publish(&p, o->replace, err);
}

enum rc exchange_export(struct store_entry *e, const struct export_options *o, struct err *err)
{
    CLEANUP(parts_done) struct parts parts = {.maps_dir = -1};
    enum parts_layout layout = o->kind == EXPORT_DIRECTORY ? PARTS_FLAT : PARTS_ARCHIVE;
    enum rc rc = parts_make(e, layout, &parts, err);
    if (!rc)
        rc = export_parts(&parts, o, err);
    return rc ? err_ctx(err, rc, "export '%s'", store_entry_id(e)) : RC_OK;
}

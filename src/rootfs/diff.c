#include "rootfs/diff.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/json.h"
#include "codec/utf8.h"
#include "rootfs/apply.h"
#include "rootfs/tmpfs.h"
#include "rootfs/whiteout.h"

#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define DELETED_MAX 1000000

struct capture {
    const struct diff_source *from;
    yyjson_mut_doc *doc;
    yyjson_mut_val *deleted;
    bool unsaid; /* of the present entry: a deletion that cannot be in the list */
    enum rc rc;  /* of the first failure inside the filter */
    struct err *err;
};

static bool at_or_below(const char *path, const char *top)
{
    size_t n = strlen(top);
    return strncmp(path, top, n) == 0 && (path[n] == '/' || !path[n]);
}

static bool is_foreign(const struct capture *c, const char *path)
{
    static const char *const runtime[] = {"run/secrets", "etc/resolv.conf", "etc/hostname",
                                          "etc/hosts"};
    for (size_t i = 0; i < ARRAY_LEN(runtime); i++)
        if (at_or_below(path, runtime[i]))
            return true;
    for (const char *const *m = c->from->mounts; m && *m; m++)
        if (at_or_below(path, *m))
            return true;
    return false;
}

static bool is_utf8(const char *text)
{
    size_t left = strlen(text), n = 1;
    for (; left > 0 && n > 0; text += n, left -= n)
        n = utf8_len(text, left);
    return n > 0;
}

static void add_deleted(struct capture *c, const char *path)
{
    if (is_foreign(c, path))
        return;
    if (!is_utf8(path)) {
        c->unsaid = true;
        return;
    }
    if (yyjson_mut_arr_size(c->deleted) >= DELETED_MAX) {
        c->rc = err_set(c->err, RC_TOO_BIG, "more than %d deleted files", DELETED_MAX);
        return;
    }
    (void)yyjson_mut_arr_add_strcpy(c->doc, c->deleted, path);
}

/* Everything of one lower directory that the opaque upper one does not have. */
static void add_hidden(struct capture *c, int lower, const char *path)
{
    int fd = sys_openat(lower, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        fd_closep(&fd);
        return; /* not in this layer */
    }
    for (const struct dirent *e; !c->rc && (e = readdir(dir));) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        CLEANUP(mem_freep) char *name = mem_asprintf("%s/%s", path, e->d_name);
        if (fstatat(c->from->upper, name, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT)
            add_deleted(c, name);
    }
    (void)closedir(dir);
}

static bool is_opaque(const struct capture *c, const char *path)
{
    static const char *const names[] = {"trusted.overlay.opaque", "user.overlay.opaque"};
    char value = 0;
    CLEANUP(mem_freep) char *marker = mem_asprintf("%s/%s", path, WHITEOUT_OPAQUE);
    CLEANUP(fd_closep) int fd = sys_openat(c->from->upper, path, O_RDONLY | O_DIRECTORY, 0);
    struct stat st;
    for (size_t i = 0; fd >= 0 && i < ARRAY_LEN(names); i++)
        if (fgetxattr(fd, names[i], &value, 1) == 1 && (value == 'y' || value == 'x'))
            return value == 'y';
    return fstatat(c->from->upper, marker, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* For the archiver: whether an entry stays out. */
static bool stays_out(void *arg, const char *path, struct archive_entry *e)
{
    struct capture *c = arg;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (c->rc || is_foreign(c, path))
        return true;
    if (strcmp(name, WHITEOUT_OPAQUE) == 0)
        return true;
    CLEANUP(mem_freep) char *gone = whiteout_of(path, e);
    c->unsaid = false;
    if (gone) {
        add_deleted(c, gone);
        if (c->unsaid)
            whiteout_make(e, gone);
        return !c->unsaid;
    }
    if (archive_entry_filetype(e) == AE_IFDIR && is_opaque(c, path)) {
        c->unsaid = c->from->unseen_lower;
        for (size_t i = 0; i < c->from->n_lower; i++)
            add_hidden(c, c->from->lower[i], path);
    }
    whiteout_drop_attributes(e);
    if (c->unsaid)
        whiteout_make_opaque(e);
    return false;
}

static enum rc write_deleted(const struct capture *c, int ckptfd, bool *out_deleted,
                             struct err *err)
{
    *out_deleted = yyjson_mut_arr_size(c->deleted) > 0;
    if (!*out_deleted)
        return RC_OK;
    size_t len = 0;
    CLEANUP(mem_freep) char *text = yyjson_mut_write(c->doc, 0, &len);
    if (!text)
        return err_set(err, RC_IO, "a deleted file's name is no UTF-8");
    enum rc rc = fs_write_whole(ckptfd, ROOTFS_DELETED, text, len, 0644, err);
    return rc ? rc : fs_write_whole(ckptfd, ROOTFS_DELETED_OLD, text, len, 0644, err);
}

enum rc rootfs_capture(const struct diff_source *from, int ckptfd, bool *out_diff,
                       bool *out_deleted, struct err *err)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    struct capture c = {.from = from, .doc = doc, .deleted = yyjson_mut_arr(doc), .err = err};
    bool any = false, deleted = false;
    yyjson_mut_doc_set_root(doc, c.deleted);
    enum rc rc = tmpfs_save_filtered(from->upper, ckptfd, ROOTFS_DIFF, stays_out, &c, &any, err);
    if (!rc)
        rc = c.rc;
    if (!rc)
        rc = write_deleted(&c, ckptfd, &deleted, err);
    if (rc)
        return err_ctx(err, rc, "capture the root file system");
    *out_diff = any;
    *out_deleted = deleted;
    return RC_OK;
}

#include "rootfs/apply.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/json.h"
#include "rootfs/tmpfs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX ((size_t)64 << 20)
#define KEPT_MAX 4096
#define MOUNTS_MAX ((size_t)16 << 20)

static const char *const always_kept[] = {"run/secrets", "etc/resolv.conf", "etc/hostname",
                                          "etc/hosts"};

/* Paths that belong to the container itself, relative, NULL-terminated. */
struct kept {
    size_t n;
    char *path[KEPT_MAX + 1];
};

static void kept_done(struct kept *k)
{
    for (size_t i = 0; i < k->n; i++)
        free(k->path[i]);
}

static void keep(struct kept *k, const char *path)
{
    if (k->n < KEPT_MAX)
        k->path[k->n++] = mem_strdup(path);
}

/* Every mount point of ours but the root, from /proc/self/mountinfo's fifth field. */
static enum rc keep_mounts(struct kept *k, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = fs_read_file(AT_FDCWD, "/proc/self/mountinfo", MOUNTS_MAX, &text, err);
    if (rc)
        return rc;
    char *save = NULL;
    for (char *line = strtok_r(text.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        int at = 0, end = 0;
        if (sscanf(line, "%*d %*d %*s %*s %n%*s%n", &at, &end) < 0 || !end)
            continue;
        line[end] = '\0';
        char *to = line + at;
        for (const char *from = line + at; *from; from++, to++) { /* \040 is a blank */
            unsigned code = 0;
            *to = *from;
            if (*from == '\\' && sscanf(from + 1, "%3o", &code) == 1) {
                *to = (char)code;
                from += 3;
            }
        }
        *to = '\0';
        if (line[at + 1])
            keep(k, line + at + 1);
    }
    return RC_OK;
}

static enum rc what_is_kept(struct kept *k, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(always_kept); i++)
        keep(k, always_kept[i]);
    return keep_mounts(k, err);
}

enum rc rootfs_apply_files(int ckptfd, int rootfd, struct err *err)
{
    CLEANUP(kept_done) struct kept kept = {0};
    enum rc rc = what_is_kept(&kept, err);
    return rc ? rc
              : tmpfs_load_except(ckptfd, ROOTFS_DIFF, rootfd, (const char *const *)kept.path, err);
}

/* `path` is a kept one, lies below one, or contains one. */
static bool touches_kept(const char *path, const struct kept *kept)
{
    size_t n = strlen(path);
    for (size_t i = 0; i < kept->n; i++) {
        const char *k = kept->path[i];
        size_t m = strlen(k), least = n < m ? n : m;
        if (strncmp(path, k, least) == 0 && ((n > m ? path : k)[least] == '/' || n == m))
            return true;
    }
    return false;
}

static bool is_clean(const char *path, size_t len)
{
    if (!len || strlen(path) != len || path[0] == '/')
        return false;
    for (const char *p = path; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        p += n + (p[n] == '/' && p[n + 1]);
        if (p[0] == '/' && !p[1])
            return false;
    }
    return true;
}

static enum rc delete_one(int rootfd, const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/');
    CLEANUP(mem_freep)
    char *parent = slash ? mem_asprintf("%.*s", (int)(slash - path), path) : mem_strdup(".");
    CLEANUP(fd_closep)
    int dir = sys_open_in_root(rootfd, parent, O_PATH | O_DIRECTORY, 0, RESOLVE_NO_SYMLINKS);
    if (dir < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
        return RC_OK; /* gone already, or replaced by a link: then it is not what was deleted */
    if (dir < 0)
        return err_sys(err, "open '%s'", parent);
    CLEANUP(fd_closep) int real = sys_openat(dir, ".", O_RDONLY | O_DIRECTORY, 0);
    if (real < 0)
        return err_sys(err, "open '%s'", parent);
    return fs_remove_tree(real, slash ? slash + 1 : path, err);
}

static enum rc read_list(int ckptfd, struct buf *text, struct err *err)
{
    enum rc rc = fs_read_file(ckptfd, ROOTFS_DELETED, LIST_MAX, text, err);
    return rc == RC_NOT_FOUND ? fs_read_file(ckptfd, ROOTFS_DELETED_OLD, LIST_MAX, text, err) : rc;
}

enum rc rootfs_apply_deletions(int ckptfd, int rootfd, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(kept_done) struct kept kept = {0};
    enum rc rc = read_list(ckptfd, &text, err);
    if (rc == RC_NOT_FOUND)
        return RC_OK;
    if (!rc)
        rc = what_is_kept(&kept, err);
    if (rc)
        return rc;
    CLEANUP(json_docp) yyjson_doc *doc = yyjson_read(buf_str(&text), text.len, 0);
    yyjson_val *list = yyjson_doc_get_root(doc), *item;
    if (!yyjson_is_arr(list))
        return err_set(err, RC_CORRUPT, "the list of deleted files is no JSON array");
    size_t i, max;
    yyjson_arr_foreach(list, i, max, item)
    {
        const char *path = yyjson_get_str(item);
        if (!path || !is_clean(path, yyjson_get_len(item)))
            return err_set(err, RC_CORRUPT, "the list of deleted files holds a bad path");
        if (touches_kept(path, &kept))
            continue;
        rc = delete_one(rootfd, path, err);
        if (rc)
            return err_ctx(err, rc, "delete '%s'", path);
    }
    return RC_OK;
}

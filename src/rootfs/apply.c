#include "rootfs/apply.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/json.h"
#include "rootfs/tmpfs.h"
#include "rootfs/whiteout.h"

#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LIST_MAX ((size_t)64 << 20)
#define MOUNTS_MAX ((size_t)16 << 20)

static const char *const always_kept[] = {"run/secrets", "etc/resolv.conf", "etc/hostname",
                                          "etc/hosts"};

/* Paths that belong to the container itself, relative. */
struct kept {
    size_t n, cap;
    char **path;
};

static void kept_done(struct kept *k)
{
    for (size_t i = 0; i < k->n; i++)
        free(k->path[i]);
    free(k->path);
}

static void keep(struct kept *k, const char *path)
{
    if (k->n == k->cap) {
        k->cap = k->cap ? 2 * k->cap : 64;
        k->path = mem_realloc(k->path, k->cap * sizeof(*k->path));
    }
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

/* `path` is a kept one or lies below one. */
static bool is_kept(const char *path, const struct kept *kept)
{
    for (size_t i = 0; i < kept->n; i++) {
        size_t n = strlen(kept->path[i]);
        if (strncmp(path, kept->path[i], n) == 0 && (path[n] == '/' || !path[n]))
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

/* ---- files ---- */

struct apply {
    int root;
    const struct kept *kept;
    bool sparing; /* leave alone what is as it should be */
    /* The kernel makes one whiteout and links it to all the names: an archive then has it once, and
     * links to that. */
    char **whiteouts;
    size_t n_whiteouts;
};

static void apply_done(struct apply *a)
{
    for (size_t i = 0; i < a->n_whiteouts; i++)
        free(a->whiteouts[i]);
    free(a->whiteouts);
}

static void remember(struct apply *a, const char *path)
{
    a->whiteouts = mem_realloc(a->whiteouts, (a->n_whiteouts + 1) * sizeof(*a->whiteouts));
    a->whiteouts[a->n_whiteouts++] = mem_strdup(path);
}

static char *deleted_by(struct apply *a, const char *path, struct archive_entry *e)
{
    const char *link = archive_entry_hardlink(e);
    char *gone = whiteout_of(path, e);
    if (gone && archive_entry_filetype(e) == AE_IFCHR)
        remember(a, path);
    while (link && link[0] == '.' && link[1] == '/')
        link += 2;
    for (size_t i = 0; link && !gone && i < a->n_whiteouts; i++)
        if (strcmp(a->whiteouts[i], link) == 0)
            gone = mem_strdup(path);
    return gone;
}

static enum rc remove_path(const struct apply *a, const char *path, struct err *err)
{
    if (!is_clean(path, strlen(path)))
        return err_set(err, RC_CORRUPT, "the archive has a bad path");
    enum rc rc = touches_kept(path, a->kept) ? RC_OK : delete_one(a->root, path, err);
    return rc ? err_ctx(err, rc, "delete '%s'", path) : RC_OK;
}

/* Of an opaque directory nothing of what the image has in it is seen. */
static enum rc empty(const struct apply *a, const char *path, struct err *err)
{
    enum rc rc = RC_OK;
    const char *at = *path ? path : ".";
    int fd = sys_open_in_root(a->root, at, O_RDONLY | O_DIRECTORY, 0, RESOLVE_NO_SYMLINKS);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        fd_closep(&fd);
        bool none = errno == ENOENT || errno == ENOTDIR || errno == ELOOP;
        return none ? RC_OK : err_sys(err, "open '%s'", path);
    }
    for (const struct dirent *e; !rc && (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        CLEANUP(mem_freep)
        char *child = mem_asprintf("%s%s%s", path, *path ? "/" : "", e->d_name);
        rc = remove_path(a, child, err);
    }
    (void)closedir(dir);
    return rc;
}

/* What is there and cannot become what is to be there: a directory for anything else, or the other
 * way round.  The archiver would not empty the one, and would keep a link to a directory. */
static enum rc make_way(const struct apply *a, const char *path, bool for_dir, struct err *err)
{
    struct stat st;
    CLEANUP(fd_closep)
    int fd = sys_open_in_root(a->root, path, O_PATH | O_NOFOLLOW, 0, 0);
    if (fd < 0 || fstat(fd, &st) < 0 || S_ISDIR(st.st_mode) == for_dir)
        return RC_OK;
    if (touches_kept(path, a->kept))
        return err_set(err, RC_CONFLICT, "something of this container's own is mounted there");
    return delete_one(a->root, path, err);
}

/* A directory that is there with its owner and mode. */
static bool is_as_it_should_be(const struct apply *a, const char *path, struct archive_entry *e)
{
    struct stat st;
    const char *at = *path ? path : ".";
    CLEANUP(fd_closep)
    int fd = sys_open_in_root(a->root, at, O_PATH | O_NOFOLLOW, 0, RESOLVE_NO_SYMLINKS);
    return a->sparing && fd >= 0 && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) &&
           st.st_uid == (uid_t)archive_entry_uid(e) && st.st_gid == (gid_t)archive_entry_gid(e) &&
           (st.st_mode & 07777) == (archive_entry_perm(e) & 07777);
}

static enum rc before_entry(void *arg, const char *path, struct archive_entry *e, bool *out_skip,
                            struct err *err)
{
    struct apply *a = arg;
    bool is_dir = archive_entry_filetype(e) == AE_IFDIR && !archive_entry_hardlink(e);
    CLEANUP(mem_freep) char *gone = deleted_by(a, path, e);
    const char *slash = strrchr(path, '/');
    CLEANUP(mem_freep) char *parent = mem_asprintf("%.*s", slash ? (int)(slash - path) : 0, path);
    *out_skip = gone || whiteout_is_opaque_mark(path) || is_kept(path, a->kept);
    if (gone)
        return remove_path(a, gone, err);
    if (whiteout_is_opaque_mark(path))
        return empty(a, parent, err);
    if (*out_skip)
        return RC_OK;
    if (!*path) {
        *out_skip = is_as_it_should_be(a, path, e);
        return RC_OK;
    }
    enum rc rc = make_way(a, path, is_dir, err);
    if (!rc && whiteout_is_opaque(e))
        rc = empty(a, path, err);
    whiteout_drop_attributes(e);
    *out_skip = !rc && is_dir && is_as_it_should_be(a, path, e);
    return rc;
}

static enum rc apply_stream(int fd, int rootfd, bool sparing, struct err *err)
{
    CLEANUP(kept_done) struct kept kept = {0};
    CLEANUP(apply_done) struct apply a = {.root = rootfd, .kept = &kept, .sparing = sparing};
    enum rc rc = what_is_kept(&kept, err);
    if (!rc)
        rc = tmpfs_load_stream(fd, rootfd, before_entry, &a, err);
    return rc ? err_ctx(err, rc, "extract '" ROOTFS_DIFF "'") : RC_OK;
}

enum rc rootfs_apply_files(int ckptfd, int rootfd, struct err *err)
{
    CLEANUP(fd_closep) int fd = sys_openat(ckptfd, ROOTFS_DIFF, O_RDONLY | O_NOFOLLOW, 0);
    return fd < 0 ? err_sys(err, "open '" ROOTFS_DIFF "'") : apply_stream(fd, rootfd, false, err);
}

enum rc rootfs_apply_stream(int fd, int rootfd, struct err *err)
{
    return apply_stream(fd, rootfd, true, err);
}

/* ---- deletions ---- */

static enum rc read_list(int ckptfd, struct buf *text, struct err *err)
{
    enum rc rc = fs_read_file(ckptfd, ROOTFS_DELETED, LIST_MAX, text, err);
    return rc == RC_NOT_FOUND ? fs_read_file(ckptfd, ROOTFS_DELETED_OLD, LIST_MAX, text, err) : rc;
}

enum rc rootfs_apply_deletions(int ckptfd, int rootfd, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = read_list(ckptfd, &text, err);
    if (rc == RC_NOT_FOUND)
        return RC_OK;
    return rc ? rc : rootfs_apply_deletion_list(buf_str(&text), text.len, rootfd, err);
}

enum rc rootfs_apply_deletion_list(const char *text, size_t len, int rootfd, struct err *err)
{
    CLEANUP(kept_done) struct kept kept = {0};
    enum rc rc = what_is_kept(&kept, err);
    if (rc)
        return rc;
    CLEANUP(json_docp) yyjson_doc *doc = yyjson_read(text, len, 0);
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

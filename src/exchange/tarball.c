#include "exchange/tarball.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BLOCK ((size_t)1 << 20)

/* An archive that is written, and below it what takes its bytes: a second "archive" of the format
 * raw compresses them, since of both the digests are wanted. */
struct writing {
    int fd;
    struct archive *outer; /* compresses; NULL: nothing does */
    struct sha256 *inside, *outside;
    uint64_t size;
    uint64_t *done;
    struct archive *archive;
    enum rc rc; /* of a write: the first failure */
    struct err *err;
};

static void free_archive(struct archive **a)
{
    if (*a)
        (void)archive_write_free(*a);
}

static void free_entry(struct archive_entry **e)
{
    archive_entry_free(*e);
}

static enum rc why(const struct writing *w, struct archive *a, struct err *err)
{
    const char *text = archive_error_string(a);
    return w->rc ? w->rc : err_set(err, RC_IO, "write the archive: %s", text ? text : "unknown");
}

/* Never fails to the archive, which would leak its buffer: what comes after a failure is dropped.
 */
static la_ssize_t to_file(struct archive *a, void *arg, const void *data, size_t len)
{
    struct writing *w = arg;
    (void)a;
    if (!w->rc)
        w->rc = sys_write_all(w->fd, data, len, w->err);
    if (!w->rc && w->outside)
        sha256_add(w->outside, data, len);
    w->size += len;
    return (la_ssize_t)len;
}

static la_ssize_t to_outer(struct archive *a, void *arg, const void *data, size_t len)
{
    struct writing *w = arg;
    sha256_add(w->inside, data, len);
    if (!w->outer)
        return to_file(a, arg, data, len);
    if (!w->rc && archive_write_data(w->outer, data, len) != (la_ssize_t)len)
        w->rc = why(w, w->outer, w->err);
    return (la_ssize_t)len;
}

static enum rc open_outer(struct writing *w, enum export_compression c, struct err *err)
{
    if (c == EXPORT_PLAIN)
        return RC_OK;
    CLEANUP(free_archive) struct archive *a = archive_write_new();
    CLEANUP(free_entry) struct archive_entry *e = archive_entry_new();
    archive_entry_set_filetype(e, AE_IFREG);
    int filter =
        c == EXPORT_GZIP ? archive_write_add_filter_gzip(a) : archive_write_add_filter_zstd(a);
    if (filter != ARCHIVE_OK || archive_write_set_format_raw(a) != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(a, 1) != ARCHIVE_OK ||
        archive_write_open(a, w, NULL, to_file, NULL) != ARCHIVE_OK ||
        archive_write_header(a, e) != ARCHIVE_OK)
        return why(w, a, err);
    w->outer = STEAL(a);
    return RC_OK;
}

static enum rc open_tar(struct archive *a, struct writing *w, archive_write_callback *to,
                        struct err *err)
{
    w->archive = a;
    return archive_write_set_format_pax_restricted(a) != ARCHIVE_OK ||
                   archive_write_set_bytes_per_block(a, (int)BLOCK) != ARCHIVE_OK ||
                   archive_write_set_bytes_in_last_block(a, 1) != ARCHIVE_OK ||
                   archive_write_open(a, w, NULL, to, NULL) != ARCHIVE_OK
               ? why(w, a, err)
               : RC_OK;
}

static enum rc header(struct writing *w, const char *path, unsigned kind, unsigned mode,
                      uint64_t size, int64_t mtime, struct err *err)
{
    CLEANUP(free_entry) struct archive_entry *e = archive_entry_new();
    archive_entry_set_pathname(e, path);
    archive_entry_set_filetype(e, kind);
    archive_entry_set_perm(e, (mode_t)mode);
    archive_entry_set_size(e, (la_int64_t)size);
    archive_entry_set_mtime(e, mtime, 0);
    return archive_write_header(w->archive, e) != ARCHIVE_OK ? why(w, w->archive, err) : RC_OK;
}

static enum rc append(void *arg, const void *data, size_t len, struct err *err)
{
    struct writing *w = arg;
    if (archive_write_data(w->archive, data, len) != (la_ssize_t)len || w->rc)
        return why(w, w->archive, err);
    if (w->done)
        (void)__atomic_fetch_add(w->done, len, __ATOMIC_RELAXED);
    return RC_OK;
}

/* Folders get a member of their own before the first that is in them. */
static enum rc folder(struct writing *w, const struct part *p, const struct part *before,
                      struct err *err)
{
    const char *slash = strrchr(p->path, '/');
    size_t n = slash ? (size_t)(slash - p->path) : 0;
    if (!n || (before && strncmp(before->path, p->path, n + 1) == 0))
        return RC_OK;
    CLEANUP(mem_freep) char *path = mem_asprintf("%.*s/", (int)n, p->path);
    return header(w, path, AE_IFDIR, 0700, 0, p->mtime, err);
}

static enum rc write_all(const struct parts *p, struct writing *w, struct err *err)
{
    enum rc rc = RC_OK;
    for (size_t i = 0; !rc && i < p->n; i++) {
        const struct part *one = &p->list[i];
        rc = folder(w, one, i ? &p->list[i - 1] : NULL, err);
        if (!rc)
            rc = header(w, one->path, AE_IFREG, one->mode, one->size, one->mtime, err);
        if (!rc)
            rc = part_read(p, one, append, w, err);
        if (rc)
            rc = err_ctx(err, rc, "'%s'", one->path);
    }
    return rc;
}

/* End an archive and what is below it. */
static enum rc finish(struct writing *w, struct archive *a, enum rc rc, struct err *err)
{
    w->rc = w->rc ? w->rc : rc; /* the rest of a broken one is not written */
    if (archive_write_close(a) != ARCHIVE_OK && !rc)
        rc = why(w, a, err);
    if (w->outer && archive_write_close(w->outer) != ARCHIVE_OK && !rc)
        rc = why(w, w->outer, err);
    return rc ? rc : w->rc;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): `done` is counted up while parts are read */
enum rc tarball_write(const struct parts *p, int fd, enum export_compression c, uint64_t *done,
                      struct tarball *out, struct err *err)
{
    CLEANUP(sha256_freep) struct sha256 *inside = sha256_new();
    CLEANUP(sha256_freep) struct sha256 *outside = sha256_new();
    struct writing w = {.fd = fd, .inside = inside, .outside = outside, .done = done, .err = err};
    enum rc rc = open_outer(&w, c, err);
    CLEANUP(free_archive) struct archive *outer = w.outer;
    CLEANUP(free_archive) struct archive *a = archive_write_new();
    if (!rc)
        rc = open_tar(a, &w, to_outer, err);
    if (!rc)
        rc = finish(&w, a, write_all(p, &w, err), err);
    if (rc)
        return rc;
    out->size = w.size;
    sha256_get(outside, out->digest);
    sha256_get(inside, out->digest_inside);
    return RC_OK;
}

/* ---- a tree ---- */

static enum rc copy_in(struct writing *w, int fd, uint64_t size, struct err *err)
{
    CLEANUP(mem_freep) uint8_t *data = mem_alloc(BLOCK);
    for (uint64_t left = size; left > 0;) {
        size_t n = 0;
        enum rc rc = sys_read_full(fd, data, left < BLOCK ? (size_t)left : BLOCK, &n, err);
        if (!rc && n == 0)
            rc = err_set(err, RC_CORRUPT, "a file has become shorter");
        if (!rc)
            rc = append(w, data, n, err);
        if (rc)
            return rc;
        left -= n;
    }
    return RC_OK;
}

/* NOLINTNEXTLINE(misc-no-recursion): we have made the tree; it has two levels of folders */
static enum rc add_tree(struct writing *w, int dir, const char *prefix, struct err *err)
{
    int copy = sys_openat(dir, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
    if (!d) {
        fd_closep(&copy);
        return err_sys(err, "read a directory");
    }
    enum rc rc = RC_OK;
    for (const struct dirent *x; !rc && (x = readdir(d));) {
        struct stat st;
        if (x->d_name[0] == '.')
            continue;
        CLEANUP(mem_freep) char *path = mem_asprintf("%s%s", prefix, x->d_name);
        CLEANUP(fd_closep) int fd = sys_openat(dir, x->d_name, O_RDONLY | O_NOFOLLOW, 0);
        if (fd < 0 || fstat(fd, &st) < 0) {
            rc = err_sys(err, "open '%s'", path);
        } else if (S_ISDIR(st.st_mode)) {
            CLEANUP(mem_freep) char *below = mem_asprintf("%s/", path);
            rc = header(w, below, AE_IFDIR, 0755, 0, st.st_mtime, err);
            if (!rc)
                rc = add_tree(w, fd, below, err);
        } else {
            rc = header(w, path, AE_IFREG, 0644, (uint64_t)st.st_size, st.st_mtime, err);
            if (!rc)
                rc = copy_in(w, fd, (uint64_t)st.st_size, err);
        }
    }
    (void)closedir(d);
    return rc;
}

enum rc tarball_of_tree(int dir, int fd, struct err *err)
{
    struct writing w = {.fd = fd, .err = err};
    CLEANUP(free_archive) struct archive *a = archive_write_new();
    enum rc rc = open_tar(a, &w, to_file, err);
    return rc ? rc : finish(&w, a, add_tree(&w, dir, "", err), err);
}

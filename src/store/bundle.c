#include "store/bundle.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/listing.h"
#include "base/mem.h"
#include "base/sys.h"
#include "store/done.h"
#include "store/manifest.h"
#include "store/memory.h"
#include "store/metadata.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define PIECE ((size_t)1 << 20)       /* written at once */
#define READ_PIECE ((size_t)4 << 20)  /* read at once, after the first */
#define COPY_BYTES ((size_t)64 << 10) /* between a file and the archive */

static const char *const first_files[] = {MANIFEST_NAME, MANIFEST_SIGNATURE, METADATA_NAME,
                                          DONE_NAME, MEMORY_NAME};
#define DOCUMENTS 4U /* of these */

static size_t rank(const char *name)
{
    size_t i = 0;
    while (i < ARRAY_LEN(first_files) && strcmp(first_files[i], name) != 0)
        i++;
    return i;
}

/* A file name that needs no look at what it may lead to. */
static bool is_plain(const char *name)
{
    return name && *name && *name != '.' && strlen(name) <= 255 && !strchr(name, '/');
}

static void free_archive(struct archive **a)
{
    if (*a)
        (void)archive_free(*a);
}

static void free_entry(struct archive_entry **e)
{
    archive_entry_free(*e);
}

/* ---- writing ---- */

struct writing {
    struct backend_upload *upload;
    enum rc rc; /* of the backend: its first failure */
    struct err *err;
};

/* Never fails to the archive, which would then leak its buffer: after the backend's first failure
 * the rest is swallowed. */
static la_ssize_t append(struct archive *a, void *arg, const void *data, size_t len)
{
    struct writing *w = arg;
    (void)a;
    if (!w->rc)
        w->rc = backend_append(w->upload, data, len, w->err);
    return (la_ssize_t)len;
}

/* What the archive's failure comes from: the backend, or the archive itself. */
static enum rc why_written(const struct writing *w, struct archive *a, struct err *err)
{
    const char *text = archive_error_string(a);
    return w->rc ? w->rc : err_set(err, RC_IO, "write the archive: %s", text ? text : "unknown");
}

static enum rc write_content(const struct writing *w, struct archive *a, int fd, const char *name,
                             uint64_t size, struct err *err)
{
    CLEANUP(mem_freep) uint8_t *data = mem_alloc(COPY_BYTES);
    uint64_t left = size;
    while (left > 0) {
        size_t n = 0;
        enum rc rc = sys_read_full(fd, data, left < COPY_BYTES ? left : COPY_BYTES, &n, err);
        if (rc)
            return err_ctx(err, rc, "read '%s'", name);
        if (n == 0)
            return err_set(err, RC_CORRUPT, "'%s' has become shorter", name);
        if (archive_write_data(a, data, n) != (la_ssize_t)n)
            return why_written(w, a, err);
        left -= n;
    }
    return RC_OK;
}

static enum rc write_file(const struct writing *w, struct archive *a, int dir, const char *name,
                          struct err *err)
{
    struct stat st;
    CLEANUP(fd_closep) int fd = sys_openat(dir, name, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(err, "open '%s'", name);
    CLEANUP(free_entry) struct archive_entry *e = archive_entry_new();
    archive_entry_set_pathname(e, name);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, 0600);
    archive_entry_set_size(e, st.st_size);
    archive_entry_set_mtime(e, st.st_mtime, 0);
    if (archive_write_header(a, e) != ARCHIVE_OK)
        return why_written(w, a, err);
    return write_content(w, a, fd, name, (uint64_t)st.st_size, err);
}

static int in_order(const void *a, const void *b)
{
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    size_t i = rank(x), j = rank(y);
    return i != j ? (i < j ? -1 : 1) : strcmp(x, y);
}

/* Those that go into it, in its order. */
static enum rc list_files(int dir, struct listing *out, struct err *err)
{
    size_t n = 0;
    enum rc rc = listing_read(dir, ".", out, err);
    for (size_t i = 0; !rc && i < out->n; i++) {
        char *name = out->name[i];
        struct stat st;
        if (is_plain(name) && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode))
            out->name[n++] = name;
        else
            free(name);
    }
    out->n = n;
    if (n)
        qsort(out->name, n, sizeof(*out->name), in_order);
    return rc;
}

enum rc bundle_write(int dir, struct backend *b, const char *key, bool replace, struct err *err)
{
    CLEANUP(listing_done) struct listing files = {.n = 0};
    CLEANUP(backend_abortp) struct backend_upload *u = NULL;
    enum rc rc = list_files(dir, &files, err);
    if (!rc)
        rc = backend_begin(b, key, &u, err);
    if (rc)
        return rc;
    if (replace)
        backend_replaces(u);
    struct writing w = {.upload = u, .err = err};
    CLEANUP(free_archive) struct archive *a = archive_write_new();
    if (!a || archive_write_set_format_pax_restricted(a) != ARCHIVE_OK ||
        archive_write_set_bytes_per_block(a, (int)PIECE) != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(a, 1) != ARCHIVE_OK ||
        archive_write_open(a, &w, NULL, append, NULL) != ARCHIVE_OK)
        return err_set(err, RC_IO, "begin an archive");
    for (size_t i = 0; !rc && i < files.n; i++) {
        rc = write_file(&w, a, dir, files.name[i], err);
        w.rc = w.rc ? w.rc : rc; /* the rest is not sent */
        rc = w.rc;
    }
    if (archive_write_close(a) != ARCHIVE_OK && !rc)
        rc = why_written(&w, a, err);
    rc = rc ? rc : w.rc;
    return rc ? rc : backend_commit(u, err);
}

/* ---- reading ---- */

struct reading {
    struct backend_object *object;
    uint64_t at; /* where the next read begins */
    uint8_t *data;
    enum rc rc; /* of the backend */
    struct err *err;
};

static la_ssize_t fetch(struct archive *a, void *arg, const void **out)
{
    struct reading *r = arg;
    uint64_t left = r->object->size - r->at;
    size_t want = r->at == 0 ? BUNDLE_FIRST : READ_PIECE, n = left < want ? (size_t)left : want;
    (void)a;
    r->rc = backend_read(r->object, r->at, r->data, n, r->err);
    if (r->rc)
        return -1;
    r->at += n;
    *out = r->data;
    return (la_ssize_t)n;
}

static la_int64_t skip(struct archive *a, void *arg, la_int64_t n)
{
    struct reading *r = arg;
    uint64_t left = r->object->size - r->at;
    uint64_t step = n > 0 ? (uint64_t)n : 0;
    (void)a;
    step = step < left ? step : left;
    r->at += step;
    return (la_int64_t)step;
}

static enum rc why_read(const struct reading *r, struct archive *a, struct err *err)
{
    const char *text = archive_error_string(a);
    return r->rc ? r->rc
                 : err_set(err, RC_CORRUPT, "it is no whole archive: %s", text ? text : "cut off");
}

static enum rc extract(const struct reading *r, struct archive *a, struct archive_entry *e, int dir,
                       struct err *err)
{
    const char *name = archive_entry_pathname(e);
    int fd = sys_openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    CLEANUP(fd_closep) int file = fd;
    if (fd < 0 && errno == EEXIST && rank(name) < DOCUMENTS)
        return RC_OK; /* from the first look, at the same object */
    if (fd < 0 && errno == EEXIST)
        return err_set(err, RC_CORRUPT, "'%s' is in it twice", name);
    if (fd < 0)
        return err_sys(err, "make '%s'", name);
    /* By blocks: what comes before a cut is written, and tells whose archive it is. */
    for (la_int64_t written = 0;;) {
        const void *data = NULL;
        size_t n = 0;
        la_int64_t at = 0;
        int got = archive_read_data_block(a, &data, &n, &at);
        if (got == ARCHIVE_EOF && written == archive_entry_size(e))
            return RC_OK;
        if (got != ARCHIVE_OK && (uint64_t)archive_entry_size(e) > r->object->size)
            return err_set(err, RC_CORRUPT, "its member '%s' claims to be larger than all of it",
                           name);
        if (got != ARCHIVE_OK && got != ARCHIVE_EOF)
            return why_read(r, a, err);
        if (got == ARCHIVE_EOF || at != written)
            return err_set(err, RC_CORRUPT, "its member '%s' has holes", name);
        enum rc rc = sys_write_all(file, data, n, err);
        if (rc)
            return err_ctx(err, rc, "write '%s'", name);
        written += (la_int64_t)n;
    }
}

/* Nothing but plain files, of a size that is told. */
static enum rc check_member(struct archive_entry *e, struct err *err)
{
    const char *name = archive_entry_pathname(e);
    if (!is_plain(name))
        return err_set(err, RC_CORRUPT, "it has a member with the bad name '%.64s'",
                       name ? name : "");
    if (archive_entry_filetype(e) != AE_IFREG || archive_entry_hardlink(e) ||
        archive_entry_symlink(e))
        return err_set(err, RC_CORRUPT, "its member '%s' is no plain file", name);
    if (!archive_entry_size_is_set(e) || archive_entry_size(e) < 0)
        return err_set(err, RC_CORRUPT, "its member '%s' has no size", name);
    return RC_OK;
}

static enum rc read_members(const struct reading *r, struct archive *a, enum bundle_part part,
                            int dir, bool *out_all, struct err *err)
{
    for (;;) {
        struct archive_entry *e = NULL;
        int got = archive_read_next_header(a, &e);
        if (got == ARCHIVE_EOF) {
            *out_all = true;
            return RC_OK;
        }
        if (got != ARCHIVE_OK)
            return why_read(r, a, err);
        enum rc rc = check_member(e, err);
        if (!rc && part == BUNDLE_DOCUMENTS && r->object->size > BUNDLE_FIRST &&
            rank(archive_entry_pathname(e)) >= DOCUMENTS) {
            *out_all = false;
            return RC_OK;
        }
        if (!rc)
            rc = extract(r, a, e, dir, err);
        if (rc)
            return rc;
    }
}

enum rc bundle_read(struct backend_object *o, enum bundle_part part, int dir, bool *out_all,
                    struct err *err)
{
    CLEANUP(mem_freep) uint8_t *data = mem_alloc(READ_PIECE);
    struct reading r = {.object = o, .data = data, .err = err};
    CLEANUP(free_archive) struct archive *a = archive_read_new();
    if (!a || archive_read_support_format_tar(a) != ARCHIVE_OK ||
        archive_read_open2(a, &r, NULL, fetch, skip, NULL) != ARCHIVE_OK)
        return a ? why_read(&r, a, err) : err_set(err, RC_IO, "begin to read an archive");
    return read_members(&r, a, part, dir, out_all, err);
}

#include "store/sealed.h"

#include "base/compiler.h"
#include "base/listing.h"
#include "base/mem.h"
#include "base/sys.h"
#include "store/done.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define INDEX "index" /* the name that is bound to sealed-0: no file can have number 0 */
#define NAME_MAX_LEN 32

static void file_name(size_t number, char out[NAME_MAX_LEN])
{
    (void)snprintf(out, NAME_MAX_LEN, SEALED_PREFIX "%zu", number);
}

/* ---- writing ---- */

struct writing {
    const struct domain *domain;
    int from, to;
    struct manifest *outer, inner;
    uint64_t *total;
};

/* Encrypt one file as number `n`, make it durable and add it to the outer manifest. */
static enum rc write_one(struct writing *w, const char *name, int from, size_t n, struct err *err)
{
    char sealed_name[NAME_MAX_LEN];
    struct digest d;
    uint64_t len = 0;
    struct seal_label label = {w->outer->instance, w->outer->id, name};
    file_name(n, sealed_name);
    CLEANUP(fd_closep)
    int to = sys_openat(w->to, sealed_name, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
    if (to < 0)
        return err_sys(err, "make '%s'", sealed_name);
    enum rc rc = seal_write(w->domain, &label, from, to, err);
    if (!rc && sys_fsync(to) < 0)
        rc = err_sys(err, "fsync '%s'", sealed_name);
    if (!rc)
        rc = digest_file(to, 2, NULL, &len, &d, err);
    if (rc)
        return rc;
    *w->total += len;
    manifest_add(w->outer, sealed_name, len, &d);
    return RC_OK;
}

static enum rc write_file(struct writing *w, const char *name, struct err *err)
{
    struct digest d;
    uint64_t len = 0;
    CLEANUP(fd_closep) int fd = sys_openat(w->from, name, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0)
        return err_sys(err, "open '%s'", name);
    enum rc rc = digest_file(fd, 2, NULL, &len, &d, err);
    if (rc)
        return err_ctx(err, rc, "digest of '%s'", name);
    manifest_add(&w->inner, name, len, &d);
    return write_one(w, name, fd, w->inner.n, err);
}

static enum rc write_index(struct writing *w, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(fd_closep) int fd = memfd_create("index", MFD_CLOEXEC);
    if (fd < 0)
        return err_sys(err, "make a file in memory");
    manifest_format(&w->inner, &text);
    enum rc rc = sys_write_all(fd, text.data, text.len, err);
    return rc ? rc : write_one(w, INDEX, fd, 0, err);
}

/* NOLINTNEXTLINE(readability-non-const-parameter): `total` is counted up through the work */
enum rc sealed_write(const struct domain *d, int from, int to, struct manifest *m, uint64_t *total,
                     struct err *err)
{
    struct writing w = {.domain = d, .from = from, .to = to, .outer = m, .total = total};
    CLEANUP(listing_done) struct listing files = {.n = 0};
    enum rc rc = listing_read(from, ".", &files, err);
    for (size_t i = 0; !rc && i < files.n; i++) {
        struct stat st;
        if (fstatat(from, files.name[i], &st, AT_SYMLINK_NOFOLLOW) < 0)
            rc = err_sys(err, "'%s'", files.name[i]);
        else if (S_ISREG(st.st_mode))
            rc = write_file(&w, files.name[i], err);
    }
    if (!rc)
        rc = write_index(&w, err);
    manifest_done(&w.inner);
    return rc;
}

/* ---- reading ---- */

struct sealed {
    int dir; /* borrowed */
    const struct manifest *outer;
    struct domain *domain;
    struct manifest inner;
};

static enum rc open_file(const struct sealed *s, size_t number, int *out, struct err *err)
{
    char name[NAME_MAX_LEN];
    file_name(number, name);
    if (!manifest_find(s->outer, name))
        return err_set(err, RC_CORRUPT, "its manifest has no '%s'", name);
    int fd = sys_openat(s->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0)
        return errno == ENOENT ? err_set(err, RC_CORRUPT, "'%s' is missing", name)
                               : err_sys(err, "open '%s'", name);
    *out = fd;
    return RC_OK;
}

static enum rc read_index(struct sealed *s, struct err *err)
{
    CLEANUP(buf_done) struct buf text = {.max = MANIFEST_MAX};
    struct seal_label label = {s->outer->instance, s->outer->id, INDEX};
    int file = -1;
    enum rc rc = open_file(s, 0, &file, err);
    CLEANUP(fd_closep) int fd = file;
    if (!rc)
        rc = seal_read_bytes(s->domain, &label, fd, &text, err);
    if (rc == RC_CONFLICT)
        return err_set(err, RC_CONFLICT,
                       "replayed manifest: it is that of another making of this "
                       "checkpoint, perhaps an older one that was put back");
    if (!rc)
        rc = manifest_parse(buf_str(&text), text.len, &s->inner, err);
    if (!rc && s->inner.n + 1 > s->outer->n)
        rc =
            err_set(err, RC_CORRUPT, "its manifest has %zu files for %zu", s->outer->n, s->inner.n);
    return rc;
}

enum rc sealed_open(int dir, const struct manifest *m, struct domain *d, struct sealed **out,
                    struct err *err)
{
    CLEANUP(sealed_freep) struct sealed *s = mem_zalloc(sizeof(*s));
    *s = (struct sealed){.dir = dir, .outer = m, .domain = d};
    enum rc rc = read_index(s, err);
    if (!rc)
        *out = STEAL(s);
    return rc;
}

void sealed_freep(struct sealed **p)
{
    struct sealed *s = STEAL(*p);
    if (!s)
        return;
    domain_freep(&s->domain);
    manifest_done(&s->inner);
    free(s);
}

const struct manifest *sealed_manifest(const struct sealed *s)
{
    return &s->inner;
}

const struct domain *sealed_domain(const struct sealed *s)
{
    return s->domain;
}

/* Exactly one of `to` (a file) and `out` is used. */
static enum rc read_file(const struct sealed *s, const char *name, int to, struct buf *out,
                         struct err *err)
{
    const struct manifest_file *f = manifest_find(&s->inner, name);
    struct seal_label label = {s->outer->instance, s->outer->id, name};
    if (!f)
        return err_set(err, RC_NOT_FOUND, "it has no '%s'", name);
    int file = -1;
    enum rc rc = open_file(s, (size_t)(f - s->inner.files) + 1, &file, err);
    CLEANUP(fd_closep) int fd = file;
    if (!rc)
        rc = out ? seal_read_bytes(s->domain, &label, fd, out, err)
                 : seal_read(s->domain, &label, fd, to, err);
    return rc == RC_CONFLICT ? err_set(err, RC_CORRUPT, "'%s' belongs to another making", name)
                             : rc;
}

static enum rc matches(const struct sealed *s, const char *name, uint64_t len,
                       const struct digest *d, struct err *err)
{
    const struct manifest_file *f = manifest_find(&s->inner, name);
    return f && f->size == len && digest_equal(d, &f->digest)
               ? RC_OK
               : err_set(err, RC_CORRUPT, "'%s' is damaged", name);
}

enum rc sealed_read(const struct sealed *s, const char *name, struct buf *out, struct err *err)
{
    struct digest d;
    size_t before = out->len;
    enum rc rc = read_file(s, name, -1, out, err);
    if (rc)
        return rc;
    digest_file_bytes(out->data + before, out->len - before, &d);
    rc = matches(s, name, out->len - before, &d, err);
    if (rc)
        buf_cut(out, before);
    return rc;
}

enum rc sealed_copy(const struct sealed *s, const char *name, int dirfd, struct err *err)
{
    struct digest d;
    uint64_t len = 0;
    CLEANUP(fd_closep)
    int to = sys_openat(dirfd, name, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
    if (to < 0)
        return err_sys(err, "make a copy of '%s'", name);
    enum rc rc = read_file(s, name, to, NULL, err);
    if (!rc)
        rc = digest_file(to, 1, NULL, &len, &d, err);
    return rc ? rc : matches(s, name, len, &d, err);
}

#include "store/workingset.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/rand.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[8] = {'c', 'h', 'r', 'e', 'k', 'w', 'k', 's'};

#define FORMAT 1
#define HEADER 64
#define EXTENT_BYTES 16
#define CHUNK_BYTES 48
#define TMP_PREFIX ".tmp-"
#define FIRST_READ ((size_t)128 << 10)
#define UPLOAD_PIECE ((size_t)1 << 20)

/* ---- little-endian numbers ---- */

static void put(struct buf *b, uint64_t value, size_t bytes)
{
    uint8_t raw[8];
    for (size_t i = 0; i < bytes; i++)
        raw[i] = (uint8_t)(value >> (8 * i));
    buf_add(b, raw, bytes);
}

static uint64_t take(const uint8_t **at, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)(*at)[i] << (8 * i);
    *at += bytes;
    return value;
}

static size_t table_bytes(uint64_t n_extents, uint64_t n_chunks)
{
    return HEADER + n_extents * EXTENT_BYTES + n_chunks * CHUNK_BYTES;
}

/* ---- parsing ---- */

static bool take_extents(const uint8_t **at, struct workingset *w)
{
    for (size_t i = 0; i < w->n_extents; i++) {
        struct workingset_extent *e = &w->extents[i];
        e->stream = (uint32_t)take(at, 4);
        e->pages = (uint32_t)take(at, 4);
        e->first = take(at, 8);
        if (e->pages == 0 || e->pages > WORKINGSET_PAGES_MAX - w->pages || e->first >> 48)
            return false;
        w->pages += e->pages;
    }
    return true;
}

static bool take_chunks(const uint8_t **at, struct workingset *w, uint64_t file_size)
{
    uint64_t left = w->pages;
    for (size_t i = 0; i < w->n_chunks; i++) {
        struct workingset_chunk *c = &w->chunks[i];
        memcpy(c->digest.bytes, *at, DIGEST_LEN);
        *at += DIGEST_LEN;
        c->offset = take(at, 8);
        c->stored = (uint32_t)take(at, 4);
        c->pages = (uint16_t)take(at, 2);
        c->codec = (uint16_t)take(at, 2);
        uint64_t want = left < MEMORY_CHUNK_PAGES ? left : MEMORY_CHUNK_PAGES;
        if (want == 0 || c->pages != want || c->codec >= COMPRESS_COUNT_ || c->stored == 0 ||
            c->stored > MEMORY_CHUNK || c->offset > file_size || c->stored > file_size - c->offset)
            return false;
        left -= want;
    }
    return left == 0;
}

enum rc workingset_parse(const void *data, size_t len, uint64_t file_size, struct workingset *out,
                         struct err *err)
{
    CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT;
    const uint8_t *at = (const uint8_t *)data + sizeof(magic);
    if (len < HEADER || memcmp(data, magic, sizeof(magic)) != 0)
        return err_set(err, RC_CORRUPT, "this is no working set");
    uint64_t format = take(&at, 4), page = take(&at, 4);
    if (format > FORMAT)
        return err_set(err, RC_UNSUPPORTED, "the working set is of a newer chrek (format %ju)",
                       (uintmax_t)format);
    memcpy(w.memory.bytes, at, DIGEST_LEN);
    at += DIGEST_LEN;
    uint64_t n_extents = take(&at, 8), n_chunks = take(&at, 8);
    struct digest d;
    if (format < 1 || page != MEMORY_PAGE || n_extents > WORKINGSET_PAGES_MAX ||
        n_chunks > WORKINGSET_PAGES_MAX || len < table_bytes(n_extents, n_chunks) + DIGEST_LEN)
        return err_set(err, RC_CORRUPT, "the working set contradicts itself");
    size_t size = table_bytes(n_extents, n_chunks);
    digest_of(data, size, &d);
    if (memcmp(d.bytes, (const uint8_t *)data + size, DIGEST_LEN) != 0)
        return err_set(err, RC_CORRUPT, "the working set is damaged");
    w.n_extents = (size_t)n_extents;
    w.n_chunks = (size_t)n_chunks;
    w.extents = mem_zalloc((w.n_extents + 1) * sizeof(*w.extents));
    w.chunks = mem_zalloc((w.n_chunks + 1) * sizeof(*w.chunks));
    if (!take_extents(&at, &w) || !take_chunks(&at, &w, file_size))
        return err_set(err, RC_CORRUPT, "the working set contradicts itself");
    *out = w;
    w = (struct workingset)WORKINGSET_INIT;
    return RC_OK;
}

void workingset_place_done(struct workingset_place *p)
{
    fd_closep(&p->base);
    free(p->name);
    *p = (struct workingset_place)WORKINGSET_NOWHERE;
}

void workingset_done(struct workingset *w)
{
    inflow_freep(&w->inflow);
    backend_closep(&w->object);
    fd_closep(&w->fd);
    free(w->extents);
    free(w->chunks);
    *w = (struct workingset)WORKINGSET_INIT;
}

/* ---- reading ---- */

/* Exactly these bytes. */
static enum rc read_at(int fd, uint64_t offset, void *data, size_t len, struct err *err)
{
    size_t got = 0;
    while (got < len) {
        ssize_t n = pread(fd, (uint8_t *)data + got, len - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(err, "read the working set");
        if (n == 0)
            return err_set(err, RC_CORRUPT, "the working set was cut off");
        got += (size_t)n;
    }
    return RC_OK;
}

/* The same of what was opened. */
static enum rc read_bytes(const struct workingset *w, uint64_t offset, void *data, size_t len,
                          struct err *err)
{
    if (w->inflow)
        return inflow_read(w->inflow, offset, data, len, err);
    return w->object ? backend_read(w->object, offset, data, len, err)
                     : read_at(w->fd, offset, data, len, err);
}

static enum rc open_file(const struct workingset_place *at, struct workingset *w,
                         uint64_t *out_size, struct err *err)
{
    CLEANUP(fd_closep)
    int dir = sys_openat(at->base, WORKINGSET_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    CLEANUP(fd_closep) int fd = dir < 0 ? -1 : sys_openat(dir, at->name, O_RDONLY | O_NOFOLLOW, 0);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(err, "open the working set of '%s'", at->name);
    if (!S_ISREG(st.st_mode))
        return err_set(err, RC_CORRUPT, "the working set is no file");
    *out_size = (uint64_t)st.st_size;
    w->fd = fd_steal(&fd);
    return RC_OK;
}

/* As one that is known: who reads it does the reading ahead. */
static enum rc open_object(const struct workingset_place *at, struct workingset *w,
                           uint64_t *out_size, struct err *err)
{
    struct backend_info info = {.size = 0};
    enum rc rc = backend_stat(at->backend, at->name, &info, err);
    if (!rc)
        rc = backend_open_known(at->backend, at->name, &info, &w->object, err);
    if (!rc)
        *out_size = w->object->size;
    return rc;
}

/* How long the tables are, from the header. */
static enum rc table_size(const uint8_t *header, size_t *out, struct err *err)
{
    const uint8_t *at = header + HEADER - 16;
    uint64_t n_extents = take(&at, 8), n_chunks = take(&at, 8);
    if (n_extents > WORKINGSET_PAGES_MAX || n_chunks > WORKINGSET_PAGES_MAX ||
        table_bytes(n_extents, n_chunks) + DIGEST_LEN > WORKINGSET_TABLE_MAX)
        return err_set(err, RC_CORRUPT, "the working set contradicts itself");
    *out = table_bytes(n_extents, n_chunks) + DIGEST_LEN;
    return RC_OK;
}

/* With the first read come tables of a usual length. */
static enum rc read_table(const struct workingset *w, uint64_t size, uint8_t **out, size_t *out_len,
                          struct err *err)
{
    size_t first = size < FIRST_READ ? (size_t)size : FIRST_READ, len = 0;
    if (first < HEADER)
        return err_set(err, RC_CORRUPT, "the working set was cut off");
    CLEANUP(mem_freep) uint8_t *table = mem_alloc(FIRST_READ);
    enum rc rc = read_bytes(w, 0, table, first, err);
    if (!rc)
        rc = table_size(table, &len, err);
    if (!rc && len > size)
        rc = err_set(err, RC_CORRUPT, "the working set was cut off");
    if (!rc && len > first) {
        table = mem_realloc(table, len);
        rc = read_bytes(w, first, table + first, len - first, err);
    }
    if (rc)
        return rc;
    *out = STEAL(table);
    *out_len = len;
    return RC_OK;
}

enum rc workingset_open(const struct workingset_place *at, const struct digest *memory,
                        struct workingset *out, struct err *err)
{
    CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT, opened = WORKINGSET_INIT;
    CLEANUP(mem_freep) uint8_t *table = NULL;
    uint64_t size = 0;
    size_t len = 0;
    enum rc rc =
        at->backend ? open_object(at, &opened, &size, err) : open_file(at, &opened, &size, err);
    if (!rc)
        rc = read_table(&opened, size, &table, &len, err);
    if (!rc)
        rc = workingset_parse(table, len, size, &w, err);
    if (rc)
        return rc;
    if (!digest_equal(&w.memory, memory))
        return err_set(err, RC_NOT_FOUND, "the working set is of another checkpoint");
    w.fd = fd_steal(&opened.fd);
    w.object = STEAL(opened.object);
    if (w.fd >= 0)
        (void)posix_fadvise(w.fd, (off_t)len, 0, POSIX_FADV_WILLNEED);
    *out = w;
    w = (struct workingset)WORKINGSET_INIT;
    return RC_OK;
}

void workingset_fetch(struct workingset *w)
{
    unsigned threads = w->object ? backend_pace(w->object->backend).reads : 0;
    uint64_t at = w->n_chunks ? w->chunks[0].offset : 0;
    for (size_t i = 0; i < w->n_chunks; i++) {
        if (w->chunks[i].offset != at)
            return; /* not as we write them */
        at += w->chunks[i].stored;
    }
    if (threads > 0 && at == w->object->size && w->n_chunks > 0)
        w->inflow = inflow_new(w->object, w->chunks[0].offset, threads);
}

enum rc workingset_chunk(const struct workingset *w, size_t chunk, void *scratch, void *out,
                         struct err *err)
{
    const struct workingset_chunk *c = &w->chunks[chunk];
    struct digest d;
    enum rc rc = read_bytes(w, c->offset, scratch, c->stored, err);
    if (rc)
        return rc;
    digest_of(scratch, c->stored, &d);
    if (!digest_equal(&d, &c->digest))
        return err_set(err, RC_CORRUPT, "the working set is damaged at byte %ju",
                       (uintmax_t)c->offset);
    return compress_expand((enum compress_codec)c->codec, scratch, c->stored, out,
                           c->pages * MEMORY_PAGE, err);
}

/* ---- writing ---- */

struct writing {
    int fd;
    uint64_t offset;
    const struct page_reader *pages;
    uint8_t *raw, *packed;
    size_t filled; /* pages in raw */
    struct workingset_chunk *chunks;
    size_t n_chunks;
};

static enum rc flush(struct writing *w, struct err *err)
{
    if (w->filled == 0)
        return RC_OK;
    size_t len = w->filled * MEMORY_PAGE, stored = 0;
    enum compress_codec codec = compress_block(COMPRESS_LZ4, w->raw, len, w->packed, &stored);
    const uint8_t *bytes = codec == COMPRESS_RAW ? w->raw : w->packed;
    stored = codec == COMPRESS_RAW ? len : stored;
    struct workingset_chunk *c = &w->chunks[w->n_chunks++];
    *c = (struct workingset_chunk){.offset = w->offset,
                                   .stored = (uint32_t)stored,
                                   .pages = (uint16_t)w->filled,
                                   .codec = (uint16_t)codec};
    digest_of(bytes, stored, &c->digest);
    w->offset += stored;
    w->filled = 0;
    return sys_write_all(w->fd, bytes, stored, err);
}

static enum rc add_extent(struct writing *w, const struct workingset_extent *e, struct err *err)
{
    uint64_t first = e->first, left = e->pages;
    while (left > 0) {
        uint64_t room = MEMORY_CHUNK_PAGES - w->filled, n = room < left ? room : left;
        enum rc rc =
            page_reader_pages(w->pages, e->stream, first, n, w->raw + w->filled * MEMORY_PAGE, err);
        w->filled += rc ? 0 : n;
        if (!rc && w->filled == MEMORY_CHUNK_PAGES)
            rc = flush(w, err);
        if (rc)
            return rc;
        first += n;
        left -= n;
    }
    return RC_OK;
}

static void put_table(struct buf *out, const struct digest *memory,
                      const struct workingset_extent *extents, size_t n, const struct writing *w)
{
    struct digest d;
    buf_add(out, magic, sizeof(magic));
    put(out, FORMAT, 4);
    put(out, MEMORY_PAGE, 4);
    buf_add(out, memory->bytes, DIGEST_LEN);
    put(out, n, 8);
    put(out, w->n_chunks, 8);
    for (size_t i = 0; i < n; i++) {
        put(out, extents[i].stream, 4);
        put(out, extents[i].pages, 4);
        put(out, extents[i].first, 8);
    }
    for (size_t i = 0; i < w->n_chunks; i++) {
        const struct workingset_chunk *c = &w->chunks[i];
        buf_add(out, c->digest.bytes, DIGEST_LEN);
        put(out, c->offset, 8);
        put(out, c->stored, 4);
        put(out, c->pages, 2);
        put(out, c->codec, 2);
    }
    digest_of(out->data, out->len, &d);
    buf_add(out, d.bytes, DIGEST_LEN);
}

/* Chunks first, behind the place of the tables, whose size is known before. */
static enum rc write_file(int fd, const struct digest *memory,
                          const struct workingset_extent *extents, size_t n,
                          const struct page_reader *pages, struct err *err)
{
    uint64_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += extents[i].pages;
    uint64_t n_chunks = (total + MEMORY_CHUNK_PAGES - 1) / MEMORY_CHUNK_PAGES;
    CLEANUP(mem_freep) uint8_t *raw = mem_alloc(MEMORY_CHUNK + compress_bound(MEMORY_CHUNK));
    CLEANUP(mem_freep)
    struct workingset_chunk *chunks = mem_zalloc((n_chunks + 1) * sizeof(*chunks));
    CLEANUP(buf_done) struct buf table = {.max = WORKINGSET_TABLE_MAX};
    struct writing w = {.fd = fd,
                        .offset = table_bytes(n, n_chunks) + DIGEST_LEN,
                        .pages = pages,
                        .raw = raw,
                        .packed = raw + MEMORY_CHUNK,
                        .chunks = chunks};
    enum rc rc = RC_OK;
    if (lseek(fd, (off_t)w.offset, SEEK_SET) < 0)
        return err_sys(err, "write the working set");
    for (size_t i = 0; !rc && i < n; i++)
        rc = add_extent(&w, &extents[i], err);
    if (!rc)
        rc = flush(&w, err);
    if (rc)
        return rc;
    put_table(&table, memory, extents, n, &w);
    if (table.overflowed)
        return err_set(err, RC_TOO_BIG, "the working set has too many extents");
    if (lseek(fd, 0, SEEK_SET) < 0)
        return err_sys(err, "write the working set");
    rc = sys_write_all(fd, table.data, table.len, err);
    if (!rc && sys_fsync(fd) < 0)
        return err_sys(err, "write the working set");
    return rc;
}

static enum rc write_beside(const struct workingset_place *at, const struct digest *memory,
                            const struct workingset_extent *extents, size_t n,
                            const struct page_reader *pages, struct err *err)
{
    if (sys_mkdirat(at->base, WORKINGSET_DIR, 0700) < 0 && errno != EEXIST)
        return err_sys(err, "make '" WORKINGSET_DIR "'");
    CLEANUP(fd_closep)
    int dir = sys_openat(at->base, WORKINGSET_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (dir < 0)
        return err_sys(err, "open '" WORKINGSET_DIR "'");
    /* One name for all who write, so that what a crash leaves is taken up again. */
    CLEANUP(mem_freep) char *tmp = mem_asprintf(TMP_PREFIX "%.200s", at->name);
    CLEANUP(fd_closep) int fd = sys_openat(dir, tmp, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(err, "make '%s'", tmp);
    struct stat ours, named;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &ours) < 0 ||
        fstatat(dir, tmp, &named, AT_SYMLINK_NOFOLLOW) < 0 || ours.st_ino != named.st_ino)
        return err_set(err, RC_UNAVAILABLE, "somebody else is writing the working set");
    enum rc rc = ftruncate(fd, 0) < 0 ? err_sys(err, "empty '%s'", tmp)
                                      : write_file(fd, memory, extents, n, pages, err);
    if (!rc && sys_rename(dir, tmp, at->name, 0) < 0)
        rc = err_sys(err, "publish the working set");
    if (rc)
        (void)sys_unlinkat(dir, tmp, 0);
    return rc;
}

static enum rc upload(const struct workingset_place *at, int fd, struct err *err)
{
    CLEANUP(mem_freep) uint8_t *data = mem_alloc(UPLOAD_PIECE);
    CLEANUP(backend_abortp) struct backend_upload *u = NULL;
    size_t n = UPLOAD_PIECE;
    if (lseek(fd, 0, SEEK_SET) < 0)
        return err_sys(err, "read the working set");
    enum rc rc = backend_begin(at->backend, at->name, &u, err);
    if (rc || !u)
        return rc;
    backend_replaces(u);
    while (!rc && n == UPLOAD_PIECE) {
        rc = sys_read_full(fd, data, UPLOAD_PIECE, &n, err);
        if (!rc)
            rc = backend_append(u, data, n, err);
    }
    return rc ? rc : backend_commit(u, err);
}

/* The tables come first and are known last: it is made in a file without a name. */
static enum rc write_object(const struct workingset_place *at, const struct digest *memory,
                            const struct workingset_extent *extents, size_t n,
                            const struct page_reader *pages, struct err *err)
{
    char name[17];
    rand_hex(name, 16);
    CLEANUP(fd_closep) int fd = sys_openat(at->base, name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0 || sys_unlinkat(at->base, name, 0) < 0)
        return err_sys(err, "make a file for the working set");
    enum rc rc = write_file(fd, memory, extents, n, pages, err);
    return rc ? rc : upload(at, fd, err);
}

enum rc workingset_write(const struct workingset_place *at, const struct digest *memory,
                         const struct workingset_extent *extents, size_t n,
                         const struct page_reader *pages, struct err *err)
{
    return at->backend ? write_object(at, memory, extents, n, pages, err)
                       : write_beside(at, memory, extents, n, pages, err);
}

void workingset_remove(const struct workingset_place *at)
{
    if (at->backend) {
        (void)!backend_remove(at->backend, at->name, NULL);
        return;
    }
    CLEANUP(fd_closep)
    int dir = sys_openat(at->base, WORKINGSET_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    CLEANUP(mem_freep) char *tmp = mem_asprintf(TMP_PREFIX "%.200s", at->name);
    if (dir < 0)
        return;
    (void)sys_unlinkat(dir, at->name, 0);
    (void)sys_unlinkat(dir, tmp, 0);
}

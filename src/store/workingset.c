#include "store/workingset.h"

#include "base/compiler.h"
#include "base/mem.h"
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

void workingset_done(struct workingset *w)
{
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

enum rc workingset_open(int base, const char *id, const struct digest *memory,
                        struct workingset *out, struct err *err)
{
    CLEANUP(fd_closep)
    int dir = sys_openat(base, WORKINGSET_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    CLEANUP(fd_closep) int fd = dir < 0 ? -1 : sys_openat(dir, id, O_RDONLY | O_NOFOLLOW, 0);
    struct stat st;
    uint8_t header[HEADER];
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(err, "open the working set of '%s'", id);
    if (!S_ISREG(st.st_mode))
        return err_set(err, RC_CORRUPT, "the working set is no file");
    enum rc rc = read_at(fd, 0, header, HEADER, err);
    if (rc)
        return rc;
    const uint8_t *at = header + HEADER - 16;
    uint64_t n_extents = take(&at, 8), n_chunks = take(&at, 8);
    if (n_extents > WORKINGSET_PAGES_MAX || n_chunks > WORKINGSET_PAGES_MAX ||
        table_bytes(n_extents, n_chunks) + DIGEST_LEN > WORKINGSET_TABLE_MAX)
        return err_set(err, RC_CORRUPT, "the working set contradicts itself");
    size_t len = table_bytes(n_extents, n_chunks) + DIGEST_LEN;
    CLEANUP(mem_freep) uint8_t *table = mem_alloc(len);
    CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT;
    rc = read_at(fd, 0, table, len, err);
    if (!rc)
        rc = workingset_parse(table, len, (uint64_t)st.st_size, &w, err);
    if (rc)
        return rc;
    if (!digest_equal(&w.memory, memory))
        return err_set(err, RC_NOT_FOUND, "the working set is of another checkpoint");
    w.fd = fd_steal(&fd);
    (void)posix_fadvise(w.fd, (off_t)len, 0, POSIX_FADV_WILLNEED);
    *out = w;
    w = (struct workingset)WORKINGSET_INIT;
    return RC_OK;
}

enum rc workingset_chunk(const struct workingset *w, size_t chunk, void *scratch, void *out,
                         struct err *err)
{
    const struct workingset_chunk *c = &w->chunks[chunk];
    struct digest d;
    enum rc rc = read_at(w->fd, c->offset, scratch, c->stored, err);
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

enum rc workingset_write(int base, const char *id, const struct digest *memory,
                         const struct workingset_extent *extents, size_t n,
                         const struct page_reader *pages, struct err *err)
{
    if (sys_mkdirat(base, WORKINGSET_DIR, 0700) < 0 && errno != EEXIST)
        return err_sys(err, "make '" WORKINGSET_DIR "'");
    CLEANUP(fd_closep)
    int dir = sys_openat(base, WORKINGSET_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (dir < 0)
        return err_sys(err, "open '" WORKINGSET_DIR "'");
    /* One name for all who write, so that what a crash leaves is taken up again. */
    CLEANUP(mem_freep) char *tmp = mem_asprintf(TMP_PREFIX "%.200s", id);
    CLEANUP(fd_closep) int fd = sys_openat(dir, tmp, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(err, "make '%s'", tmp);
    struct stat ours, named;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 || fstat(fd, &ours) < 0 ||
        fstatat(dir, tmp, &named, AT_SYMLINK_NOFOLLOW) < 0 || ours.st_ino != named.st_ino)
        return err_set(err, RC_UNAVAILABLE, "somebody else is writing the working set");
    enum rc rc = ftruncate(fd, 0) < 0 ? err_sys(err, "empty '%s'", tmp)
                                      : write_file(fd, memory, extents, n, pages, err);
    if (!rc && sys_rename(dir, tmp, id, 0) < 0)
        rc = err_sys(err, "publish the working set");
    if (rc)
        (void)sys_unlinkat(dir, tmp, 0);
    return rc;
}

void workingset_remove(int base, const char *id)
{
    CLEANUP(fd_closep)
    int dir = sys_openat(base, WORKINGSET_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    CLEANUP(mem_freep) char *tmp = mem_asprintf(TMP_PREFIX "%.200s", id);
    if (dir < 0)
        return;
    (void)sys_unlinkat(dir, id, 0);
    (void)sys_unlinkat(dir, tmp, 0);
}

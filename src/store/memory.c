#include "store/memory.h"

#include "base/compiler.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char magic[8] = {'c', 'h', 'r', 'e', 'k', 'm', 'e', 'm'};

#define FORMAT 1
#define FORMAT_SEALED 2
#define HEADER 64
#define PACK_BYTES (MEMORY_PACK_NAME_LEN + 8)
#define CHUNK_BYTES (DIGEST_LEN + 8 + 4 + 4 + 2 + 2)
#define STREAM_BYTES (4 + 4 + 8 + 8 + 8)
#define EXTENT_BYTES (8 + 4 + 4 + 4 + 4)

/* ---- little-endian numbers ---- */

static void put(struct buf *b, uint64_t value, size_t bytes)
{
    uint8_t raw[8];
    for (size_t i = 0; i < bytes; i++)
        raw[i] = (uint8_t)(value >> (8 * i));
    buf_add(b, raw, bytes);
}

struct reader {
    const uint8_t *at;
};

static uint64_t take(struct reader *r, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)r->at[i] << (8 * i);
    r->at += bytes;
    return value;
}

/* ---- writing ---- */

void memory_format(const struct memory *m, struct buf *out)
{
    static const uint8_t pad[HEADER];
    size_t begin = out->len;
    buf_add(out, magic, sizeof(magic));
    put(out, m->sealed ? FORMAT_SEALED : FORMAT, 4);
    put(out, MEMORY_PAGE, 4);
    put(out, m->n_packs, 8);
    put(out, m->n_chunks, 8);
    put(out, m->n_streams, 8);
    put(out, m->n_extents, 8);
    buf_add(out, pad, HEADER - (out->len - begin));
    for (size_t i = 0; i < m->n_packs; i++) {
        buf_add(out, m->packs[i].name, MEMORY_PACK_NAME_LEN);
        put(out, m->packs[i].size, 8);
    }
    for (size_t i = 0; i < m->n_chunks; i++) {
        const struct memory_chunk *c = &m->chunks[i];
        buf_add(out, c->digest.bytes, DIGEST_LEN);
        put(out, c->offset, 8);
        put(out, c->stored, 4);
        put(out, c->pack, 4);
        put(out, c->pages, 2);
        put(out, c->codec, 2);
    }
    for (size_t i = 0; i < m->n_streams; i++) {
        put(out, m->streams[i].id, 8);
        put(out, m->streams[i].pages, 8);
        put(out, m->streams[i].first, 8);
        put(out, m->streams[i].n, 8);
    }
    for (size_t i = 0; i < m->n_extents; i++) {
        const struct memory_extent *e = &m->extents[i];
        put(out, e->page, 8);
        put(out, e->pages, 4);
        put(out, e->chunk, 4);
        put(out, e->at, 8);
    }
}

/* ---- reading ---- */

static bool is_pack_name(const char *name)
{
    return strspn(name, "0123456789abcdef") == MEMORY_PACK_NAME_LEN;
}

static bool take_packs(struct reader *r, struct memory *m)
{
    for (size_t i = 0; i < m->n_packs; i++) {
        memcpy(m->packs[i].name, r->at, MEMORY_PACK_NAME_LEN);
        r->at += MEMORY_PACK_NAME_LEN;
        m->packs[i].size = take(r, 8);
        if (!is_pack_name(m->packs[i].name))
            return false;
    }
    return true;
}

static bool take_chunks(struct reader *r, struct memory *m)
{
    for (size_t i = 0; i < m->n_chunks; i++) {
        struct memory_chunk *c = &m->chunks[i];
        memcpy(c->digest.bytes, r->at, DIGEST_LEN);
        r->at += DIGEST_LEN;
        c->offset = take(r, 8);
        c->stored = (uint32_t)take(r, 4);
        c->pack = (uint32_t)take(r, 4);
        c->pages = (uint16_t)take(r, 2);
        c->codec = (uint16_t)take(r, 2);
        if (c->pack >= m->n_packs || c->pages == 0 || c->pages > MEMORY_CHUNK_PAGES ||
            c->stored == 0 || c->stored > MEMORY_CHUNK || c->codec >= COMPRESS_COUNT_ ||
            c->offset > m->packs[c->pack].size || c->stored > m->packs[c->pack].size - c->offset)
            return false;
    }
    return true;
}

static bool take_extents(struct reader *r, struct memory *m)
{
    for (size_t i = 0; i < m->n_extents; i++) {
        struct memory_extent *e = &m->extents[i];
        e->page = take(r, 8);
        e->pages = (uint32_t)take(r, 4);
        e->chunk = (uint32_t)take(r, 4);
        uint64_t at = take(r, 8);
        if (e->pages == 0 || at > MEMORY_CHUNK_PAGES)
            return false;
        e->at = (uint32_t)at;
        if (e->chunk == MEMORY_ZERO
                ? at != 0
                : e->chunk >= m->n_chunks || at + e->pages > m->chunks[e->chunk].pages)
            return false;
    }
    return true;
}

/* The extents of a stream cover it from its begin to its end. */
static bool is_covered(const struct memory *m, const struct memory_stream *s)
{
    uint64_t next = 0;
    if (s->first > m->n_extents || s->n > m->n_extents - s->first)
        return false;
    for (size_t i = s->first; i < s->first + s->n; i++) {
        if (m->extents[i].page != next)
            return false;
        next += m->extents[i].pages;
    }
    return next == s->pages;
}

static bool take_streams(struct reader *r, struct memory *m)
{
    for (size_t i = 0; i < m->n_streams; i++) {
        struct memory_stream *s = &m->streams[i];
        uint64_t id = take(r, 8);
        s->id = (uint32_t)id;
        s->pages = take(r, 8);
        s->first = (size_t)take(r, 8);
        s->n = (size_t)take(r, 8);
        if (id > UINT32_MAX || (i > 0 && s->id <= m->streams[i - 1].id))
            return false;
    }
    return true;
}

/* Whether the sizes of the tables are those of the file; each fits, so none overflows. */
static bool sizes_fit(const struct memory *m, size_t len)
{
    uint64_t rest = len - HEADER;
    const struct {
        uint64_t n, bytes;
    } tables[] = {{m->n_packs, PACK_BYTES},
                  {m->n_chunks, CHUNK_BYTES},
                  {m->n_streams, STREAM_BYTES},
                  {m->n_extents, EXTENT_BYTES}};
    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        if (tables[i].n > rest / tables[i].bytes)
            return false;
        rest -= tables[i].n * tables[i].bytes;
    }
    return rest == 0;
}

static bool take_tables(struct reader *r, struct memory *m)
{
    m->packs = mem_zalloc((m->n_packs + 1) * sizeof(*m->packs));
    m->chunks = mem_zalloc((m->n_chunks + 1) * sizeof(*m->chunks));
    m->streams = mem_zalloc((m->n_streams + 1) * sizeof(*m->streams));
    m->extents = mem_zalloc((m->n_extents + 1) * sizeof(*m->extents));
    if (!take_packs(r, m) || !take_chunks(r, m) || !take_streams(r, m) || !take_extents(r, m))
        return false;
    for (size_t i = 0; i < m->n_streams; i++)
        if (!is_covered(m, &m->streams[i]))
            return false;
    return true;
}

enum rc memory_parse(const void *data, size_t len, struct memory *out, struct err *err)
{
    CLEANUP(memory_done) struct memory m = {0};
    struct reader r = {(const uint8_t *)data + sizeof(magic)};
    if (len < HEADER || memcmp(data, magic, sizeof(magic)) != 0)
        return err_set(err, RC_CORRUPT, "'" MEMORY_NAME "' is no memory map");
    uint64_t format = take(&r, 4), page = take(&r, 4);
    if (format > FORMAT_SEALED)
        return err_set(err, RC_UNSUPPORTED, "'" MEMORY_NAME "' is of a newer chrek (format %ju)",
                       (uintmax_t)format);
    m.sealed = format == FORMAT_SEALED;
    m.n_packs = (size_t)take(&r, 8);
    m.n_chunks = (size_t)take(&r, 8);
    m.n_streams = (size_t)take(&r, 8);
    m.n_extents = (size_t)take(&r, 8);
    uint64_t reserved = take(&r, 8);
    reserved |= take(&r, 8);
    if (format < 1 || page != MEMORY_PAGE || reserved || !sizes_fit(&m, len) ||
        !take_tables(&r, &m))
        return err_set(err, RC_CORRUPT, "'" MEMORY_NAME "' contradicts itself");
    *out = m;
    m = (struct memory){0};
    return RC_OK;
}

void memory_done(struct memory *m)
{
    free(m->packs);
    free(m->chunks);
    free(m->streams);
    free(m->extents);
    *m = (struct memory){0};
}

/* ---- looking things up ---- */

const struct memory_stream *memory_stream(const struct memory *m, uint32_t id)
{
    size_t low = 0, high = m->n_streams;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (m->streams[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < m->n_streams && m->streams[low].id == id ? &m->streams[low] : NULL;
}

size_t memory_find(const struct memory *m, const struct memory_stream *s, uint64_t page)
{
    size_t low = s->first, high = s->first + s->n;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (m->extents[middle].page <= page)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* A bit for each page of a chunk. */
static uint64_t pages_of(const struct memory_extent *e)
{
    uint64_t all = e->pages >= 64 ? UINT64_MAX : ((uint64_t)1 << e->pages) - 1;
    return all << e->at;
}

struct memory_totals memory_totals(const struct memory *m)
{
    struct memory_totals t = {0};
    CLEANUP(mem_freep) uint64_t *used = mem_zalloc((m->n_chunks + 1) * sizeof(*used));
    uint32_t last = MEMORY_ZERO;
    for (size_t i = 0; i < m->n_streams; i++)
        t.pages += m->streams[i].pages;
    for (size_t i = 0; i < m->n_extents; i++) {
        const struct memory_extent *e = &m->extents[i];
        if (e->chunk == MEMORY_ZERO) {
            t.zero += e->pages;
            continue;
        }
        used[e->chunk] |= pages_of(e);
        t.reads += e->chunk != last;
        last = e->chunk;
    }
    for (size_t i = 0; i < m->n_chunks; i++) {
        t.different += (uint64_t)__builtin_popcountll(used[i]);
        t.stored += m->chunks[i].pages;
        t.bytes += m->chunks[i].stored;
    }
    return t;
}

#include "store/memory.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "store/memory_columns.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char magic[8] = {'c', 'h', 'r', 'e', 'k', 'm', 'e', 'm'};

/* A format is 1, and these. */
#define FORMAT_SEALED 1U
#define FORMAT_CHANGES 2U
#define FORMAT_COLUMNS 4U /* else rows, which are not written any more */
#define FORMAT_MAX 8
#define HEADER 64
#define PACK_BYTES (MEMORY_PACK_NAME_LEN + 8)
#define CHUNK_BYTES (DIGEST_LEN + 8 + 4 + 4 + 2 + 2)
#define STREAM_BYTES (4 + 4 + 8 + 8 + 8)
#define EXTENT_BYTES (8 + 4 + 4 + 4 + 4)
#define BASE_BYTES (4 + 4 + 2 + 2 + 2 + 2)

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

static void format_header(const struct memory *m, enum compress_codec codec, struct buf *out)
{
    buf_add(out, magic, sizeof(magic));
    put(out,
        1 + FORMAT_COLUMNS + (m->sealed ? FORMAT_SEALED : 0) + (m->n_bases ? FORMAT_CHANGES : 0),
        4);
    put(out, MEMORY_PAGE, 4);
    put(out, m->n_packs, 8);
    put(out, m->n_chunks, 8);
    put(out, m->n_streams, 8);
    put(out, m->n_extents, 8);
    put(out, m->n_bases, 8);
    put(out, codec, 8);
}

void memory_format(const struct memory *m, struct buf *out)
{
    CLEANUP(buf_done) struct buf columns = {.max = out->max};
    memory_columns_put(m, &columns);
    CLEANUP(mem_freep) void *small = mem_alloc(compress_bound(columns.len));
    size_t len = 0;
    enum compress_codec codec =
        columns.len ? compress_well(columns.data, columns.len, small, &len) : COMPRESS_RAW;
    format_header(m, codec, out);
    buf_add(out, codec == COMPRESS_RAW ? columns.data : small, len);
    out->overflowed = out->overflowed || columns.overflowed;
}

/* ---- reading ---- */

static bool is_pack_name(const char *name)
{
    return strspn(name, "0123456789abcdef") == MEMORY_PACK_NAME_LEN;
}

static void take_packs(struct reader *r, struct memory *m)
{
    for (size_t i = 0; i < m->n_packs; i++) {
        memcpy(m->packs[i].name, r->at, MEMORY_PACK_NAME_LEN);
        r->at += MEMORY_PACK_NAME_LEN;
        m->packs[i].size = take(r, 8);
    }
}

static void take_chunks(struct reader *r, struct memory *m)
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
    }
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
        if (id > UINT32_MAX)
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
        e->at = (uint32_t)at;
        if (at > UINT32_MAX)
            return false;
    }
    return true;
}

static bool take_bases(struct reader *r, struct memory *m)
{
    for (size_t i = 0; i < m->n_bases; i++) {
        struct memory_base *b = &m->bases[i];
        b->chunk = (uint32_t)take(r, 4);
        b->of = (uint32_t)take(r, 4);
        b->at = (uint16_t)take(r, 2);
        b->pages = (uint16_t)take(r, 2);
        b->of_at = (uint16_t)take(r, 2);
        if (take(r, 2))
            return false; /* reserved */
    }
    return true;
}

/* ---- what tables say ---- */

static bool chunks_are_good(const struct memory *m)
{
    for (size_t i = 0; i < m->n_chunks; i++) {
        const struct memory_chunk *c = &m->chunks[i];
        if (c->pack >= m->n_packs || !memory_chunk_is_sound(c) ||
            c->offset > m->packs[c->pack].size || c->stored > m->packs[c->pack].size - c->offset)
            return false;
    }
    return true;
}

static bool extents_are_good(const struct memory *m)
{
    for (size_t i = 0; i < m->n_extents; i++) {
        const struct memory_extent *e = &m->extents[i];
        if (e->pages == 0 || e->at > MEMORY_CHUNK_PAGES)
            return false;
        if (e->chunk == MEMORY_ZERO
                ? e->at != 0
                : e->chunk >= m->n_chunks || (uint64_t)e->at + e->pages > m->chunks[e->chunk].pages)
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

static bool streams_are_good(const struct memory *m)
{
    for (size_t i = 0; i < m->n_streams; i++)
        if ((i > 0 && m->streams[i].id <= m->streams[i - 1].id) || !is_covered(m, &m->streams[i]))
            return false;
    return true;
}

/* Each page of each chunk of changes has one base, in order, which is no change. */
static bool bases_are_good(const struct memory *m)
{
    uint32_t chunk = 0;
    unsigned at = 0;
    for (size_t i = 0; i < m->n_bases; i++) {
        const struct memory_base *b = &m->bases[i];
        while (at == 0 && chunk < m->n_chunks && !memory_has_changes(&m->chunks[chunk]))
            chunk++;
        if (chunk >= m->n_chunks || b->chunk != chunk || b->at != at || !b->pages ||
            at + b->pages > m->chunks[chunk].pages || b->of >= m->n_chunks ||
            memory_has_changes(&m->chunks[b->of]) ||
            (unsigned)b->of_at + b->pages > m->chunks[b->of].pages)
            return false;
        at += b->pages;
        if (at == m->chunks[chunk].pages) {
            at = 0;
            chunk++;
        }
    }
    while (at == 0 && chunk < m->n_chunks && !memory_has_changes(&m->chunks[chunk]))
        chunk++;
    return at == 0 && chunk == m->n_chunks;
}

static bool is_good(const struct memory *m)
{
    for (size_t i = 0; i < m->n_packs; i++)
        if (!is_pack_name(m->packs[i].name))
            return false;
    return chunks_are_good(m) && extents_are_good(m) && streams_are_good(m) && bases_are_good(m);
}

/* Whether the sizes of the tables are these bytes; each fits, so none overflows. */
static bool sizes_fit(const struct memory *m, uint64_t rest)
{
    const struct {
        uint64_t n, bytes;
    } tables[] = {{m->n_packs, PACK_BYTES},
                  {m->n_chunks, CHUNK_BYTES},
                  {m->n_streams, STREAM_BYTES},
                  {m->n_extents, EXTENT_BYTES},
                  {m->n_bases, BASE_BYTES}};
    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        if (tables[i].n > rest / tables[i].bytes)
            return false;
        rest -= tables[i].n * tables[i].bytes;
    }
    return rest == 0;
}

static void make_tables(struct memory *m)
{
    m->packs = mem_zalloc((m->n_packs + 1) * sizeof(*m->packs));
    m->chunks = mem_zalloc((m->n_chunks + 1) * sizeof(*m->chunks));
    m->streams = mem_zalloc((m->n_streams + 1) * sizeof(*m->streams));
    m->extents = mem_zalloc((m->n_extents + 1) * sizeof(*m->extents));
    m->bases = mem_zalloc((m->n_bases + 1) * sizeof(*m->bases));
}

static bool take_tables(struct reader *r, struct memory *m)
{
    make_tables(m);
    take_packs(r, m);
    take_chunks(r, m);
    return take_streams(r, m) && take_extents(r, m) && take_bases(r, m);
}

static bool numbers_fit(const struct memory *m)
{
    return m->n_packs <= MEMORY_MAX && m->n_chunks <= MEMORY_MAX && m->n_streams <= MEMORY_MAX &&
           m->n_extents <= MEMORY_MAX && m->n_bases <= MEMORY_MAX;
}

/* Bytes of all tables as rows. */
static uint64_t rows_size(const struct memory *m)
{
    return (uint64_t)m->n_packs * PACK_BYTES + (uint64_t)m->n_chunks * CHUNK_BYTES +
           (uint64_t)m->n_streams * STREAM_BYTES + (uint64_t)m->n_extents * EXTENT_BYTES +
           (uint64_t)m->n_bases * BASE_BYTES;
}

/* The rows of a map with changes are compressed. */
static bool expand_tables(struct reader *r, struct memory *m, uint64_t codec, size_t len)
{
    uint64_t size = numbers_fit(m) ? rows_size(m) : UINT64_MAX;
    if (size > MEMORY_MAX || !m->n_bases || codec >= COMPRESS_COUNT_)
        return false;
    CLEANUP(mem_freep) uint8_t *tables = mem_alloc((size_t)size);
    struct reader t = {tables};
    return compress_expand((enum compress_codec)codec, r->at, len, tables, (size_t)size, NULL) ==
               RC_OK &&
           take_tables(&t, m);
}

/* Columns are hardly ever larger than rows, and then not by much. */
static bool expand_columns(const struct reader *r, struct memory *m, uint64_t codec, size_t len)
{
    uint64_t size = len;
    if (!numbers_fit(m) || rows_size(m) > MEMORY_MAX)
        return false;
    if ((codec != COMPRESS_RAW && codec != COMPRESS_ZSTD) ||
        (codec == COMPRESS_ZSTD && !compress_frame_size(r->at, len, &size)) ||
        size > 2 * rows_size(m) || size < memory_columns_least(m))
        return false;
    CLEANUP(mem_freep) uint8_t *columns = mem_alloc((size_t)size + 1);
    if (compress_expand((enum compress_codec)codec, r->at, len, columns, (size_t)size, NULL))
        return false;
    make_tables(m);
    return memory_columns_take(m, columns, (size_t)size);
}

enum rc memory_parse(const void *data, size_t len, struct memory *out, struct err *err)
{
    CLEANUP(memory_done) struct memory m = {0};
    struct reader r = {(const uint8_t *)data + sizeof(magic)};
    if (len < HEADER || memcmp(data, magic, sizeof(magic)) != 0)
        return err_set(err, RC_CORRUPT, "'" MEMORY_NAME "' is no memory map");
    uint64_t format = take(&r, 4), page = take(&r, 4);
    if (format > FORMAT_MAX)
        return err_set(err, RC_UNSUPPORTED, "'" MEMORY_NAME "' is of a newer chrek (format %ju)",
                       (uintmax_t)format);
    m.sealed = (format - 1) & FORMAT_SEALED;
    m.n_packs = (size_t)take(&r, 8);
    m.n_chunks = (size_t)take(&r, 8);
    m.n_streams = (size_t)take(&r, 8);
    m.n_extents = (size_t)take(&r, 8);
    m.n_bases = (size_t)take(&r, 8);
    uint64_t codec = take(&r, 8);
    bool good = format >= 1 && page == MEMORY_PAGE;
    if (good && (format - 1) & FORMAT_COLUMNS)
        good = !((format - 1) & FORMAT_CHANGES) == !m.n_bases &&
               expand_columns(&r, &m, codec, len - HEADER);
    else if (good && (format - 1) & FORMAT_CHANGES)
        good = expand_tables(&r, &m, codec, len - HEADER);
    else if (good)
        good = !m.n_bases && !codec && sizes_fit(&m, len - HEADER) && take_tables(&r, &m);
    if (!good || !is_good(&m))
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
    free(m->bases);
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

bool memory_has_changes(const struct memory_chunk *c)
{
    return c->codec & MEMORY_CHANGES;
}

bool memory_chunk_is_sound(const struct memory_chunk *c)
{
    return c->pages > 0 && c->pages <= MEMORY_CHUNK_PAGES && c->stored > 0 &&
           c->stored <= MEMORY_CHUNK && (c->codec & ~MEMORY_CHANGES) < COMPRESS_COUNT_;
}

size_t memory_bases(const struct memory *m, uint32_t chunk, const struct memory_base **out)
{
    size_t low = 0, high = m->n_bases, n = 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (m->bases[middle].chunk < chunk)
            low = middle + 1;
        else
            high = middle;
    }
    while (low + n < m->n_bases && m->bases[low + n].chunk == chunk)
        n++;
    *out = m->bases + low;
    return n;
}

unsigned memory_change(const void *page, const void *base, void *out)
{
    uint64_t new[MEMORY_WORDS], old[MEMORY_WORDS];
    unsigned different = 0;
    memcpy(new, page, MEMORY_PAGE);
    memcpy(old, base, MEMORY_PAGE);
    for (size_t i = 0; i < MEMORY_WORDS; i++) {
        bool same = new[i] == old[i];
        different += !same;
        new[i] = same ? 0 : new[i] ? new[i] : old[i];
    }
    memcpy(out, new, MEMORY_PAGE);
    return different;
}

void memory_apply(void *change, const void *base)
{
    uint64_t words[MEMORY_WORDS], old[MEMORY_WORDS];
    memcpy(words, change, MEMORY_PAGE);
    memcpy(old, base, MEMORY_PAGE);
    for (size_t i = 0; i < MEMORY_WORDS; i++)
        words[i] = words[i] == 0 ? old[i] : words[i] == old[i] ? 0 : words[i];
    memcpy(change, words, MEMORY_PAGE);
}

bool memory_chunk_goes_on(const struct memory_chunk *before, const struct memory_chunk *c)
{
    uint64_t end = before->offset + before->stored;
    return before->pack == c->pack && c->offset >= end && c->offset - end <= MEMORY_HOLE;
}

static int by_place(const void *a, const void *b)
{
    const struct memory_chunk *x = *(const struct memory_chunk *const *)a,
                              *y = *(const struct memory_chunk *const *)b;
    if (x->pack != y->pack)
        return x->pack < y->pack ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static uint64_t count_places(const struct memory *m)
{
    CLEANUP(mem_freep)
    const struct memory_chunk **order = mem_alloc((m->n_chunks + 1) * sizeof(void *));
    uint64_t places = 0;
    for (size_t i = 0; i < m->n_chunks; i++)
        order[i] = &m->chunks[i];
    if (m->n_chunks)
        qsort(order, m->n_chunks, sizeof(void *), by_place);
    for (size_t i = 0; i < m->n_chunks; i++)
        places += i == 0 || !memory_chunk_goes_on(order[i - 1], order[i]);
    return places;
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
        uint64_t n = (uint64_t)__builtin_popcountll(used[i]);
        t.different += n;
        t.changes += memory_has_changes(&m->chunks[i]) ? n : 0;
        t.stored += m->chunks[i].pages;
        t.bytes += m->chunks[i].stored;
    }
    t.places = count_places(m);
    return t;
}

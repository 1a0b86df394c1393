#include "store/memory_columns.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "codec/hex.h"

#include <string.h>

#define NAME_BYTES ((size_t)MEMORY_PACK_NAME_LEN / 2)
#define NUMBER_BYTES 10U /* at most */

/* Both ways through the same walk: what is put is what is taken. */
struct columns {
    struct buf *out; /* NULL: taking */
    const uint8_t *at, *end;
    bool bad;
};

static void put_number(struct columns *c, uint64_t value)
{
    uint8_t bytes[NUMBER_BYTES];
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        bytes[n++] = (uint8_t)(value | 0x80);
    bytes[n++] = (uint8_t)value;
    buf_add(c->out, bytes, n);
}

/* In its shortest form only, so that a map has one. */
static uint64_t take_number(struct columns *c)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < NUMBER_BYTES && c->at < c->end; i++) {
        uint8_t byte = *c->at++;
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte & 0x80)
            continue;
        c->bad = c->bad || (i > 0 && byte == 0) || (i == NUMBER_BYTES - 1 && byte > 1);
        return value;
    }
    c->bad = true;
    return 0;
}

/* A number as its difference to what is expected there, small in either direction.
 * returns  what it is: `value` when putting */
static uint64_t number(struct columns *c, uint64_t value, uint64_t expected, uint64_t max)
{
    if (c->out) {
        uint64_t more = value - expected;
        put_number(c, more << 1 ^ (more >> 63 ? UINT64_MAX : 0));
        return value;
    }
    uint64_t folded = take_number(c);
    value = expected + (folded >> 1 ^ (folded & 1 ? UINT64_MAX : 0));
    c->bad = c->bad || value > max;
    return value;
}

static void bytes(struct columns *c, void *data, size_t len)
{
    if (c->out) {
        buf_add(c->out, data, len);
    } else if ((size_t)(c->end - c->at) < len) {
        c->bad = true;
    } else {
        memcpy(data, c->at, len);
        c->at += len;
    }
}

#define SMALL(c, field, expected)                                                                  \
    ((field) = (__typeof__(field))number((c), (field), (expected), (__typeof__(field))-1))

static void walk_packs(struct columns *c, struct memory *m)
{
    for (size_t i = 0; i < m->n_packs; i++) {
        uint8_t name[NAME_BYTES] = {0};
        if (c->out)
            c->bad = c->bad || !hex_parse(m->packs[i].name, MEMORY_PACK_NAME_LEN, name, NAME_BYTES);
        bytes(c, name, NAME_BYTES);
        if (!c->out)
            hex_format(name, NAME_BYTES, m->packs[i].name);
    }
    for (size_t i = 0; i < m->n_packs; i++)
        SMALL(c, m->packs[i].size, 0);
}

/* In their pack chunks mostly follow each other. */
static void walk_places(struct columns *c, struct memory *m)
{
    CLEANUP(mem_freep) uint64_t *next = mem_zalloc((m->n_packs + 1) * sizeof(*next));
    for (size_t i = 0; i < m->n_chunks; i++) {
        struct memory_chunk *x = &m->chunks[i];
        c->bad = c->bad || x->pack >= m->n_packs;
        uint64_t *expected = &next[x->pack < m->n_packs ? x->pack : m->n_packs];
        SMALL(c, x->offset, *expected);
        *expected = x->offset + x->stored;
    }
}

static void walk_chunks(struct columns *c, struct memory *m)
{
    for (size_t i = 0; i < m->n_chunks; i++)
        bytes(c, m->chunks[i].digest.bytes, DIGEST_LEN);
    for (size_t i = 0; i < m->n_chunks; i++)
        SMALL(c, m->chunks[i].stored, 0);
    for (size_t i = 0; i < m->n_chunks; i++)
        SMALL(c, m->chunks[i].pack, i ? m->chunks[i - 1].pack : 0);
    walk_places(c, m);
    for (size_t i = 0; i < m->n_chunks; i++)
        SMALL(c, m->chunks[i].pages, 0);
    for (size_t i = 0; i < m->n_chunks; i++)
        SMALL(c, m->chunks[i].codec, 0);
}

static void walk_streams(struct columns *c, struct memory *m)
{
    const struct memory_stream none = {0}, *last = &none;
    for (size_t i = 0; i < m->n_streams; last = &m->streams[i++]) {
        struct memory_stream *s = &m->streams[i];
        SMALL(c, s->id, 0);
        SMALL(c, s->pages, 0);
        SMALL(c, s->n, 0);
        SMALL(c, s->first, last->first + last->n);
    }
}

/* Pages of zeros count as chunk 0, the chunks from 1 on. */
static uint32_t shown(uint32_t chunk)
{
    return chunk + 1; /* MEMORY_ZERO is the last number there is */
}

static void walk_extents(struct columns *c, struct memory *m)
{
    const struct memory_extent none = {.chunk = MEMORY_ZERO}, *last = &none;
    for (size_t i = 0; i < m->n_extents; i++)
        SMALL(c, m->extents[i].pages, 0);
    for (size_t i = 0; i < m->n_extents; last = &m->extents[i++])
        SMALL(c, m->extents[i].page, last->page + last->pages);
    last = &none;
    for (size_t i = 0; i < m->n_extents; last = &m->extents[i++]) {
        uint32_t chunk = shown(m->extents[i].chunk);
        m->extents[i].chunk = SMALL(c, chunk, shown(last->chunk)) - 1;
    }
    last = &none;
    for (size_t i = 0; i < m->n_extents; last = &m->extents[i++]) {
        struct memory_extent *e = &m->extents[i];
        bool more = e->chunk == last->chunk && e->chunk != MEMORY_ZERO;
        SMALL(c, e->at, more ? (uint64_t)last->at + last->pages : 0);
    }
}

static void walk_bases(struct columns *c, struct memory *m)
{
    const struct memory_base none = {0}, *last = &none;
    for (size_t i = 0; i < m->n_bases; i++)
        SMALL(c, m->bases[i].pages, 0);
    for (size_t i = 0; i < m->n_bases; last = &m->bases[i++])
        SMALL(c, m->bases[i].chunk, last->chunk);
    last = &none;
    for (size_t i = 0; i < m->n_bases; last = &m->bases[i++])
        SMALL(c, m->bases[i].at,
              m->bases[i].chunk == last->chunk ? (uint64_t)last->at + last->pages : 0);
    last = &none;
    for (size_t i = 0; i < m->n_bases; last = &m->bases[i++])
        SMALL(c, m->bases[i].of, last->of);
    last = &none;
    for (size_t i = 0; i < m->n_bases; last = &m->bases[i++])
        SMALL(c, m->bases[i].of_at,
              m->bases[i].of == last->of ? (uint64_t)last->of_at + last->pages : 0);
}

static void walk(struct columns *c, struct memory *m)
{
    walk_packs(c, m);
    walk_chunks(c, m);
    walk_streams(c, m);
    walk_extents(c, m);
    walk_bases(c, m);
}

void memory_columns_put(const struct memory *m, struct buf *out)
{
    struct columns c = {.out = out};
    struct memory same = *m; /* its tables are not changed */
    walk(&c, &same);
}

bool memory_columns_take(struct memory *m, const void *data, size_t len)
{
    struct columns c = {.at = data, .end = (const uint8_t *)data + len};
    walk(&c, m);
    return !c.bad && c.at == c.end;
}

uint64_t memory_columns_least(const struct memory *m)
{
    return (uint64_t)m->n_packs * (NAME_BYTES + 1) + (uint64_t)m->n_chunks * (DIGEST_LEN + 5) +
           (uint64_t)m->n_streams * 4 + (uint64_t)m->n_extents * 4 + (uint64_t)m->n_bases * 5;
}

#include "store/page_mover.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "store/chunk_list.h"
#include "store/pack.h"
#include "store/page_refs.h"

#include <blake3.h>
#include <stdlib.h>
#include <string.h>

#define CACHED 32U /* chunks, 8 MiB */

/* A chunk that is being filled. */
struct open_chunk {
    uint8_t *pages;
    struct page_name names[MEMORY_CHUNK_PAGES];
    unsigned filled;
    uint32_t number;
    struct page_place *bases; /* of changes; else NULL */
    blake3_hasher whole;      /* of what they are changes to */
};

struct page_mover {
    struct backend *backend;
    const struct repack_plan *plan;
    const struct domain *domain;
    struct chunk_list list;
    page_ref **moved; /* for each source that moves, of its pages, once one has */
    uint32_t *stays;  /* number of a source in the list, UINT32_MAX: not there yet */
    uint32_t *packs;  /* the same of the plan's packs */
    struct pack_writer *pack;
    uint32_t pack_number;
    uint64_t written;
    struct open_chunk open, changes;
    uint8_t *cache, *scratch; /* CACHED chunks; one */
    uint32_t cached[CACHED];  /* which source, UINT32_MAX: none */
};

/* A map while its pages are taken. */
struct taking {
    struct page_mover *mover;
    size_t map;
    const struct memory *memory;
    const struct page_reader *reader;
    enum compress_codec codec;
    uint64_t *done;
};

struct page_mover *page_mover_new(struct backend *b, const struct repack_plan *plan,
                                  const struct domain *d)
{
    struct page_mover *m = mem_zalloc(sizeof(*m));
    *m = (struct page_mover){.backend = b, .plan = plan, .domain = d};
    m->moved = mem_zalloc((plan->n_sources + 1) * sizeof(*m->moved));
    m->stays = mem_alloc((plan->n_sources + 1) * sizeof(*m->stays));
    memset(m->stays, 0xff, plan->n_sources * sizeof(*m->stays));
    m->packs = mem_alloc((plan->n_packs + 1) * sizeof(*m->packs));
    memset(m->packs, 0xff, plan->n_packs * sizeof(*m->packs));
    memset(m->cached, 0xff, sizeof(m->cached));
    m->cache = mem_alloc((CACHED + 1) * MEMORY_CHUNK);
    m->scratch = m->cache + CACHED * MEMORY_CHUNK;
    m->open.pages = mem_alloc(MEMORY_CHUNK);
    m->changes.pages = mem_alloc(MEMORY_CHUNK);
    return m;
}

void page_mover_freep(struct page_mover **p)
{
    struct page_mover *m = STEAL(*p);
    if (!m)
        return;
    pack_abortp(&m->pack);
    for (size_t i = 0; i < m->plan->n_sources; i++)
        free(m->moved[i]);
    chunk_list_done(&m->list);
    free(m->moved);
    free(m->stays);
    free(m->packs);
    free(m->cache);
    free(m->open.pages);
    free(m->changes.pages);
    free(m);
}

/* ---- new packs ---- */

static enum rc close_pack(struct page_mover *m, struct err *err)
{
    if (!m->pack)
        return RC_OK;
    enum rc rc = pack_commit(m->pack, err);
    m->list.packs[m->pack_number].size = pack_size(m->pack);
    m->written += pack_size(m->pack);
    pack_abortp(&m->pack);
    return rc;
}

static enum rc seal(struct page_mover *m, struct open_chunk *o, enum compress_codec codec,
                    struct err *err)
{
    struct memory_chunk c;
    struct digest whole;
    if (!o->filled)
        return RC_OK;
    enum rc rc = m->pack ? RC_OK : pack_begin(m->backend, m->domain, &m->pack, err);
    if (rc)
        return rc;
    if (pack_size(m->pack) == 0)
        m->pack_number = chunk_list_pack(&m->list, pack_name(m->pack), 0);
    if (o->bases)
        blake3_hasher_finalize(&o->whole, whole.bytes, DIGEST_LEN);
    rc = pack_add(m->pack, codec, o->pages, o->names, o->filled, o->bases ? &whole : NULL, &c, err);
    if (rc)
        return rc;
    c.pack = m->pack_number;
    m->list.chunks[o->number] = c;
    o->filled = 0;
    o->bases = NULL;
    return pack_is_full(m->pack) ? close_pack(m, err) : RC_OK;
}

/* ---- what is there ---- */

static enum rc read_chunk(const struct taking *t, uint32_t chunk, const uint8_t **out,
                          struct err *err)
{
    struct page_mover *m = t->mover;
    uint32_t source = m->plan->source_of[t->map][chunk];
    uint8_t *pages = m->cache + (source % CACHED) * MEMORY_CHUNK;
    if (m->cached[source % CACHED] != source) {
        m->cached[source % CACHED] = UINT32_MAX;
        enum rc rc = page_reader_chunk(t->reader, chunk, m->scratch, pages, err);
        if (rc)
            return rc;
        m->cached[source % CACHED] = source;
    }
    *out = pages;
    return RC_OK;
}

static uint32_t pack_that_stays(struct page_mover *m, uint32_t pack)
{
    const struct repack_pack *p = &m->plan->packs[pack];
    if (m->packs[pack] == UINT32_MAX)
        m->packs[pack] = chunk_list_pack(&m->list, p->name, p->size);
    return m->packs[pack];
}

static page_ref place_of(struct page_mover *m, size_t map, uint32_t chunk, unsigned page);

/* The number of a source that does not move, or not all of it.  Of changes only once everything
 * that moves has moved: it is said of what they are changes. */
static uint32_t chunk_that_stays(struct page_mover *m, size_t map, uint32_t chunk)
{
    uint32_t source = m->plan->source_of[map][chunk];
    const struct memory *memory = m->plan->maps[map];
    const struct memory_base *list;
    if (m->stays[source] != UINT32_MAX)
        return m->stays[source];
    struct memory_chunk c = m->plan->sources[source].chunk;
    c.pack = pack_that_stays(m, c.pack);
    uint32_t number = chunk_list_chunk(&m->list);
    m->list.chunks[number] = c;
    m->stays[source] = number;
    size_t n = memory_bases(memory, chunk, &list);
    struct page_place *bases = n ? chunk_list_bases(&m->list, number, c.pages) : NULL;
    for (const struct memory_base *b = list; b < list + n; b++)
        for (unsigned k = 0; k < b->pages; k++)
            bases[b->at + k] = page_ref_place(place_of(m, map, b->of, b->of_at + k));
    return number;
}

/* Where a page is, or will be. */
static page_ref place_of(struct page_mover *m, size_t map, uint32_t chunk, unsigned page)
{
    uint32_t source = m->plan->source_of[map][chunk];
    const page_ref *moved = m->moved[source];
    if (moved && moved[page] != PAGE_REF_NONE)
        return moved[page];
    return page_ref_of(chunk_that_stays(m, map, chunk), page);
}

/* ---- moving ---- */

static bool is_to_move(const struct page_mover *m, uint32_t source, unsigned page)
{
    const page_ref *moved = m->moved[source];
    return (m->plan->sources[source].move >> page & 1) && (!moved || moved[page] == PAGE_REF_NONE);
}

static void take_place(struct page_mover *m, struct open_chunk *o, uint32_t source, unsigned page)
{
    if (o->filled == 0)
        o->number = chunk_list_chunk(&m->list);
    if (!m->moved[source])
        m->moved[source] = page_refs_new(MEMORY_CHUNK_PAGES);
    m->moved[source][page] = page_ref_of(o->number, o->filled++);
}

static void count(const struct taking *t)
{
    if (t->done)
        (void)__atomic_fetch_add(t->done, MEMORY_PAGE, __ATOMIC_RELAXED);
}

static enum rc move_page(const struct taking *t, uint32_t chunk, unsigned page, struct err *err)
{
    struct page_mover *m = t->mover;
    struct open_chunk *o = &m->open;
    uint32_t source = m->plan->source_of[t->map][chunk];
    const uint8_t *pages = NULL;
    if (!is_to_move(m, source, page))
        return RC_OK;
    enum rc rc = read_chunk(t, chunk, &pages, err);
    if (rc)
        return rc;
    memcpy(o->pages + o->filled * MEMORY_PAGE, pages + page * MEMORY_PAGE, MEMORY_PAGE);
    page_name(m->domain, pages + page * MEMORY_PAGE, &o->names[o->filled]);
    take_place(m, o, source, page);
    count(t);
    return o->filled == MEMORY_CHUNK_PAGES ? seal(m, o, t->codec, err) : RC_OK;
}

/* The page of another chunk that a page of changes is a change of. */
static struct page_place base_of(const struct memory *m, uint32_t chunk, unsigned page)
{
    const struct memory_base *list;
    size_t n = memory_bases(m, chunk, &list), i = 0;
    while (i + 1 < n && page >= (unsigned)list[i].at + list[i].pages)
        i++;
    return (struct page_place){list[i].of, list[i].of_at + (page - list[i].at)};
}

/* A change goes behind the page that it is a change of. */
static enum rc move_change(const struct taking *t, uint32_t chunk, unsigned page, struct err *err)
{
    struct page_mover *m = t->mover;
    struct open_chunk *o = &m->changes;
    uint32_t source = m->plan->source_of[t->map][chunk];
    struct page_place base = base_of(t->memory, chunk, page);
    const uint8_t *pages = NULL;
    uint8_t whole[MEMORY_PAGE];
    enum rc rc = move_page(t, base.chunk, base.page, err);
    if (rc || !is_to_move(m, source, page))
        return rc;
    rc = read_chunk(t, chunk, &pages, err);
    if (rc)
        return rc;
    memcpy(whole, pages + page * MEMORY_PAGE, MEMORY_PAGE);
    rc = read_chunk(t, base.chunk, &pages, err);
    if (rc)
        return rc;
    (void)memory_change(whole, pages + base.page * MEMORY_PAGE, o->pages + o->filled * MEMORY_PAGE);
    page_name(m->domain, whole, &o->names[o->filled]);
    take_place(m, o, source, page);
    if (o->filled == 1) {
        blake3_hasher_init(&o->whole);
        o->bases = chunk_list_bases(&m->list, o->number, MEMORY_CHUNK_PAGES);
    }
    blake3_hasher_update(&o->whole, whole, MEMORY_PAGE);
    o->bases[o->filled - 1] = page_ref_place(place_of(m, t->map, base.chunk, base.page));
    count(t);
    return o->filled == MEMORY_CHUNK_PAGES ? seal(m, o, t->codec, err) : RC_OK;
}

/* As the map's checkpoint was compressed: what nothing made smaller says nothing. */
static enum compress_codec codec_of(const struct memory *m)
{
    for (size_t i = 0; i < m->n_chunks; i++)
        if (!memory_has_changes(&m->chunks[i]) && m->chunks[i].codec != COMPRESS_RAW)
            return (enum compress_codec)m->chunks[i].codec;
    return COMPRESS_RAW;
}

enum rc page_mover_take(struct page_mover *m, size_t map, const struct page_reader *r,
                        // NOLINTNEXTLINE(readability-non-const-parameter): counted up
                        uint64_t *done, struct err *err)
{
    const struct memory *memory = m->plan->maps[map];
    struct taking t = {m, map, memory, r, codec_of(memory), done};
    enum rc rc = RC_OK;
    for (size_t i = 0; !rc && i < memory->n_extents; i++) {
        const struct memory_extent *e = &memory->extents[i];
        for (unsigned k = 0; !rc && e->chunk != MEMORY_ZERO && k < e->pages; k++)
            rc = memory_has_changes(&memory->chunks[e->chunk])
                     ? move_change(&t, e->chunk, e->at + k, err)
                     : move_page(&t, e->chunk, e->at + k, err);
    }
    /* What only others' changes need of chunks that stay with this map's. */
    for (size_t i = 0; !rc && i < memory->n_bases; i++)
        for (unsigned k = 0; !rc && k < memory->bases[i].pages; k++)
            rc = move_page(&t, memory->bases[i].of, memory->bases[i].of_at + k, err);
    if (!rc)
        rc = seal(m, &m->open, t.codec, err);
    return rc ? rc : seal(m, &m->changes, t.codec, err);
}

enum rc page_mover_finish(struct page_mover *m, uint64_t *written, struct err *err)
{
    enum rc rc = close_pack(m, err);
    if (!rc)
        *written = m->written;
    return rc;
}

/* ---- the maps afterwards ---- */

static page_ref *refs_of(struct page_mover *m, size_t map, const struct memory_stream *s)
{
    const struct memory *memory = m->plan->maps[map];
    page_ref *refs = page_refs_new(s->pages);
    for (size_t i = s->first; i < s->first + s->n; i++) {
        const struct memory_extent *e = &memory->extents[i];
        for (uint32_t k = 0; k < e->pages; k++)
            refs[e->page + k] =
                e->chunk == MEMORY_ZERO ? PAGE_REF_ZERO : place_of(m, map, e->chunk, e->at + k);
    }
    return refs;
}

enum rc page_mover_map(struct page_mover *m, size_t map, struct memory *out, struct err *err)
{
    const struct memory *old = m->plan->maps[map];
    CLEANUP(memory_done)
    struct memory new = {.sealed = old->sealed,
                         .streams = mem_zalloc((old->n_streams + 1) * sizeof(*new.streams))};
    size_t room = 0;
    for (size_t i = 0; i < old->n_streams; i++) {
        const struct memory_stream *s = &old->streams[i];
        CLEANUP(mem_freep) page_ref *refs = refs_of(m, map, s);
        enum rc rc = page_refs_add_stream(refs, s->id, s->pages, &new, &room, err);
        if (rc)
            return rc;
    }
    chunk_list_number(&m->list, &new);
    *out = new;
    new = (struct memory){0};
    return RC_OK;
}

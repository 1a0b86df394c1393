#include "store/chunk_list.h"

#include "base/compiler.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

uint32_t chunk_list_pack(struct chunk_list *l, const char *name, uint64_t size)
{
    l->packs = mem_realloc(l->packs, (l->n_packs + 1) * sizeof(*l->packs));
    struct memory_pack *p = &l->packs[l->n_packs];
    memcpy(p->name, name, sizeof(p->name));
    p->size = size;
    return (uint32_t)l->n_packs++;
}

uint32_t chunk_list_chunk(struct chunk_list *l)
{
    if (l->n_chunks == l->chunk_room) {
        l->chunk_room = l->chunk_room ? l->chunk_room * 2 : 1024;
        l->chunks = mem_realloc(l->chunks, l->chunk_room * sizeof(*l->chunks));
        l->bases = mem_realloc(l->bases, l->chunk_room * sizeof(void *));
    }
    l->chunks[l->n_chunks] = (struct memory_chunk){.pages = 0};
    l->bases[l->n_chunks] = NULL;
    return (uint32_t)l->n_chunks++;
}

struct page_place *chunk_list_bases(struct chunk_list *l, uint32_t chunk, unsigned pages)
{
    l->bases[chunk] = mem_alloc(pages * sizeof(*l->bases[chunk]));
    return l->bases[chunk];
}

void chunk_list_take(struct chunk_list *l, const struct memory *m)
{
    for (size_t i = 0; i < m->n_packs; i++)
        (void)chunk_list_pack(l, m->packs[i].name, m->packs[i].size);
    for (size_t i = 0; i < m->n_chunks; i++) {
        uint32_t chunk = chunk_list_chunk(l);
        l->chunks[chunk] = m->chunks[i];
        if (memory_has_changes(&m->chunks[i]))
            (void)chunk_list_bases(l, chunk, m->chunks[i].pages);
    }
    for (const struct memory_base *b = m->bases; b < m->bases + m->n_bases; b++)
        for (uint32_t k = 0; k < b->pages; k++)
            l->bases[b->chunk][b->at + k] = (struct page_place){b->of, b->of_at + k};
}

/* ---- numbers of a memory map ---- */

/* New numbers of chunks and packs, UINT32_MAX: not used so far. */
struct renumber {
    const struct chunk_list *l;
    struct memory *m;
    uint32_t *chunk, *pack;
    size_t base_room;
};

static uint32_t keep_chunk(struct renumber *r, uint32_t chunk)
{
    const struct chunk_list *l = r->l;
    struct memory *m = r->m;
    struct memory_chunk c = l->chunks[chunk];
    if (r->chunk[chunk] != UINT32_MAX)
        return r->chunk[chunk];
    if (r->pack[c.pack] == UINT32_MAX) {
        m->packs[m->n_packs] = l->packs[c.pack];
        r->pack[c.pack] = (uint32_t)m->n_packs++;
    }
    c.pack = r->pack[c.pack];
    m->chunks[m->n_chunks] = c;
    r->chunk[chunk] = (uint32_t)m->n_chunks++;
    return r->chunk[chunk];
}

static void add_base(struct renumber *r, struct memory_base b)
{
    struct memory *m = r->m;
    struct memory_base *last = m->n_bases ? &m->bases[m->n_bases - 1] : NULL;
    if (last && last->chunk == b.chunk && last->of == b.of &&
        last->of_at + last->pages == b.of_at) {
        last->pages++;
        return;
    }
    if (!m->bases || m->n_bases == r->base_room) {
        r->base_room = r->base_room ? r->base_room * 2 : 256;
        m->bases = mem_realloc(m->bases, r->base_room * sizeof(*m->bases));
    }
    m->bases[m->n_bases++] = b;
}

/* A chunk of changes and, before it, what they are changes of. */
static uint32_t keep_changes(struct renumber *r, uint32_t chunk)
{
    const struct page_place *bases = r->l->bases[chunk];
    unsigned n = r->l->chunks[chunk].pages;
    for (unsigned i = 0; i < n; i++)
        (void)keep_chunk(r, bases[i].chunk);
    uint32_t own = keep_chunk(r, chunk);
    for (unsigned i = 0; i < n; i++)
        add_base(r, (struct memory_base){.chunk = own,
                                         .of = r->chunk[bases[i].chunk],
                                         .at = (uint16_t)i,
                                         .pages = 1,
                                         .of_at = (uint16_t)bases[i].page});
    return own;
}

void chunk_list_number(const struct chunk_list *l, struct memory *m)
{
    CLEANUP(mem_freep) uint32_t *chunk_of = mem_alloc((l->n_chunks + 1) * sizeof(uint32_t));
    CLEANUP(mem_freep) uint32_t *pack_of = mem_alloc((l->n_packs + 1) * sizeof(uint32_t));
    struct renumber r = {.l = l, .m = m, .chunk = chunk_of, .pack = pack_of};
    memset(chunk_of, 0xff, (l->n_chunks + 1) * sizeof(uint32_t));
    memset(pack_of, 0xff, (l->n_packs + 1) * sizeof(uint32_t));
    m->chunks = mem_alloc((l->n_chunks + 1) * sizeof(*m->chunks));
    m->packs = mem_alloc((l->n_packs + 1) * sizeof(*m->packs));
    for (size_t i = 0; i < m->n_extents; i++) {
        struct memory_extent *e = &m->extents[i];
        if (e->chunk == MEMORY_ZERO)
            continue;
        bool first = chunk_of[e->chunk] == UINT32_MAX;
        e->chunk =
            first && l->bases[e->chunk] ? keep_changes(&r, e->chunk) : keep_chunk(&r, e->chunk);
    }
}

void chunk_list_done(struct chunk_list *l)
{
    for (size_t i = 0; i < l->n_chunks; i++)
        free(l->bases[i]);
    free(l->packs);
    free(l->chunks);
    free(l->bases);
    *l = (struct chunk_list){0};
}

#include "store/page_past.h"

#include "base/compiler.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define DIFFERENT_MAX (MEMORY_WORDS / 4) /* words of a page that is stored as a change */

struct page_past {
    const struct page_reader *pages;
    const struct memory *memory;
    uint32_t *order; /* its chunks by pack and offset */
    unsigned reads;
};

struct page_like {
    uint64_t first, n;
    const struct memory_stream *stream;
    uint64_t at;
};

static int compare_places(const struct memory_chunk *a, const struct memory_chunk *b)
{
    if (a->pack != b->pack)
        return a->pack < b->pack ? -1 : 1;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

static int by_place(const void *a, const void *b, void *memory)
{
    const struct memory_chunk *chunks = ((const struct memory *)memory)->chunks;
    return compare_places(&chunks[*(const uint32_t *)a], &chunks[*(const uint32_t *)b]);
}

struct page_past *page_past_new(const struct page_reader *r, unsigned reads)
{
    const struct memory *m = page_reader_memory(r);
    struct page_past *p = mem_zalloc(sizeof(*p));
    *p = (struct page_past){.pages = r, .memory = m, .reads = reads};
    p->order = mem_alloc((m->n_chunks + 1) * sizeof(*p->order));
    for (uint32_t i = 0; i < m->n_chunks; i++)
        p->order[i] = i;
    if (m->n_chunks)
        qsort_r(p->order, m->n_chunks, sizeof(*p->order), by_place, (void *)(uintptr_t)m);
    return p;
}

void page_past_freep(struct page_past **p)
{
    struct page_past *past = STEAL(*p);
    if (!past)
        return;
    free(past->order);
    free(past);
}

const struct memory *page_past_memory(const struct page_past *p)
{
    return p->memory;
}

uint32_t page_past_pack(const struct page_past *p, const char *name)
{
    for (size_t i = 0; i < p->memory->n_packs; i++)
        if (strcmp(p->memory->packs[i].name, name) == 0)
            return (uint32_t)i;
    return UINT32_MAX;
}

uint32_t page_past_chunk(const struct page_past *p, const struct memory_chunk *c)
{
    const struct memory *m = p->memory;
    size_t low = 0, high = m->n_chunks;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_places(&m->chunks[p->order[middle]], c) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == m->n_chunks)
        return UINT32_MAX;
    const struct memory_chunk *found = &m->chunks[p->order[low]];
    bool same = compare_places(found, c) == 0 && found->stored == c->stored &&
                found->pages == c->pages && found->codec == c->codec &&
                digest_equal(&found->digest, &c->digest);
    return same ? p->order[low] : UINT32_MAX;
}

/* ---- what pages are like ---- */

void page_likes_add(struct page_likes *l, const struct page_past *p, uint64_t first, uint64_t n,
                    uint32_t stream, uint64_t at)
{
    const struct memory_stream *s = memory_stream(p->memory, stream);
    if (!s || at >= s->pages || n == 0)
        return;
    n = n < s->pages - at ? n : s->pages - at;
    if ((l->n & (l->n - 1)) == 0)
        l->list = mem_realloc(l->list, (l->n ? l->n * 2 : 1) * sizeof(*l->list));
    l->list[l->n++] = (struct page_like){first, n, s, at};
}

void page_likes_done(struct page_likes *l)
{
    free(l->list);
    *l = (struct page_likes){0};
}

static const struct page_like *find_like(const struct page_likes *l, uint64_t page)
{
    size_t low = 0, high = l->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (l->list[middle].first + l->list[middle].n <= page)
            low = middle + 1;
        else
            high = middle;
    }
    return low < l->n && l->list[low].first <= page ? &l->list[low] : NULL;
}

/* A page that is stored whole, and that a page of a stream is probably a change of. */
static bool find_base(const struct page_past *p, const struct page_likes *l, uint64_t page,
                      struct page_place *out)
{
    const struct memory *m = p->memory;
    const struct page_like *like = find_like(l, page);
    if (!like)
        return false;
    uint64_t then = like->at + (page - like->first);
    const struct memory_extent *e = &m->extents[memory_find(m, like->stream, then)];
    if (e->chunk == MEMORY_ZERO)
        return false;
    *out = (struct page_place){e->chunk, e->at + (uint32_t)(then - e->page)};
    const struct memory_base *b;
    size_t n = memory_bases(m, e->chunk, &b);
    for (size_t i = 0; i < n; i++)
        if (out->page >= b[i].at && out->page < (uint32_t)b[i].at + b[i].pages) {
            *out = (struct page_place){b[i].of, b[i].of_at + (out->page - b[i].at)};
            break;
        }
    return true;
}

/* ---- looking ---- */

static bool load_chunk(struct page_look *l, const struct page_past *p, uint32_t chunk)
{
    if (l->chunk == chunk)
        return true;
    bool good = page_reader_chunk(p->pages, chunk, l->scratch, l->base, NULL) == RC_OK;
    l->chunk = good ? chunk : MEMORY_ZERO;
    return good;
}

/* All pages from `first` on that have their base in the same chunk. */
static void look_into(struct page_look *l, const struct page_past *p, const uint8_t *pages,
                      unsigned first, unsigned n, bool read)
{
    uint32_t chunk = l->bases[first].chunk;
    bool good = (read || l->chunk == chunk) && load_chunk(l, p, chunk);
    for (unsigned i = first; i < n; i++)
        if (l->small[i] && l->bases[i].chunk == chunk)
            l->small[i] = good && memory_change(pages + i * MEMORY_PAGE,
                                                l->base + l->bases[i].page * MEMORY_PAGE,
                                                l->changes + i * MEMORY_PAGE) <= DIFFERENT_MAX;
}

void page_look(struct page_look *l, const struct page_past *p, const struct page_likes *likes,
               uint64_t first, const uint8_t *pages, unsigned n, const bool *wanted)
{
    uint32_t seen[MEMORY_CHUNK_PAGES];
    unsigned n_seen = 0;
    for (unsigned i = 0; i < n; i++)
        l->small[i] = wanted[i] && find_base(p, likes, first + i, &l->bases[i]);
    if (!l->scratch) {
        l->scratch = mem_alloc(3 * MEMORY_CHUNK);
        l->base = l->scratch + MEMORY_CHUNK;
        l->changes = l->base + MEMORY_CHUNK;
    }
    for (unsigned i = 0; i < n; i++) {
        bool again = !l->small[i];
        for (unsigned s = 0; s < n_seen && !again; s++)
            again = seen[s] == l->bases[i].chunk;
        if (again)
            continue;
        seen[n_seen++] = l->bases[i].chunk;
        look_into(l, p, pages, i, n, n_seen <= p->reads);
    }
}

void page_look_done(struct page_look *l)
{
    free(l->scratch);
    *l = (struct page_look)PAGE_LOOK_INIT;
}

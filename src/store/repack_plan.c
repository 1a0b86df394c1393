#include "store/repack_plan.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "store/pack.h"

#include <stdlib.h>
#include <string.h>

#define READ_COST                                                                                  \
    ((uint64_t)1 << 20)           /* bytes that are read in the time that one more read takes      \
                                   */
#define SLACK ((uint64_t)2 << 20) /* what is not worth the trouble */
#define ENTRY (DIGEST_LEN + 16U)  /* of a chunk in a pack's index */

/* ---- chunks of all maps ---- */

/* A chunk of a map. */
struct named {
    const struct memory *map;
    uint32_t *source; /* where its source's number goes */
    uint32_t chunk;
};

static const struct memory_chunk *chunk_of(const struct named *n)
{
    return &n->map->chunks[n->chunk];
}

static const char *pack_of(const struct named *n)
{
    return n->map->packs[chunk_of(n)->pack].name;
}

static int compare(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int by_place(const void *a, const void *b)
{
    const struct memory_chunk *x = chunk_of(a), *y = chunk_of(b);
    int order = memcmp(pack_of(a), pack_of(b), MEMORY_PACK_NAME_LEN);
    if (!order)
        order = compare(x->offset, y->offset);
    if (!order) /* maps that contradict each other mean different chunks */
        order = memcmp(x->digest.bytes, y->digest.bytes, DIGEST_LEN);
    if (!order)
        order = compare(x->stored, y->stored);
    if (!order)
        order = compare(x->pages, y->pages);
    return order ? order : compare(x->codec, y->codec);
}

static void add_pack(struct repack_plan *p, const struct memory_pack *pack)
{
    p->packs[p->n_packs] = (struct repack_pack){.size = pack->size};
    memcpy(p->packs[p->n_packs++].name, pack->name, sizeof(pack->name));
}

static void add_source(struct repack_plan *p, const struct named *n)
{
    const struct memory_pack *pack = &n->map->packs[chunk_of(n)->pack];
    if (p->n_packs == 0 || strcmp(p->packs[p->n_packs - 1].name, pack->name) != 0)
        add_pack(p, pack);
    struct repack_pack *own = &p->packs[p->n_packs - 1];
    own->size = pack->size > own->size ? pack->size : own->size;
    struct repack_source *s = &p->sources[p->n_sources++];
    *s = (struct repack_source){.chunk = *chunk_of(n)};
    s->chunk.pack = (uint32_t)(p->n_packs - 1);
}

/* Sources are in the order of their places. */
static void find_sources(struct repack_plan *p)
{
    size_t n = 0, at = 0;
    p->source_of = mem_zalloc((p->n_maps + 1) * sizeof(void *));
    for (size_t i = 0; i < p->n_maps; i++)
        n += p->maps[i]->n_chunks;
    CLEANUP(mem_freep) struct named *all = mem_alloc((n + 1) * sizeof(*all));
    for (size_t i = 0; i < p->n_maps; i++) {
        const struct memory *m = p->maps[i];
        p->source_of[i] = mem_alloc((m->n_chunks + 1) * sizeof(uint32_t));
        for (uint32_t c = 0; c < m->n_chunks; c++)
            all[at++] = (struct named){m, &p->source_of[i][c], c};
    }
    if (n)
        qsort(all, n, sizeof(*all), by_place);
    p->sources = mem_alloc((n + 1) * sizeof(*p->sources));
    p->packs = mem_alloc((n + 1) * sizeof(*p->packs));
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || by_place(&all[i - 1], &all[i]) != 0)
            add_source(p, &all[i]);
        *all[i].source = (uint32_t)(p->n_sources - 1);
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, ((const struct repack_pack *)b)->name);
}

static void pin(struct repack_plan *p, const repack_name *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct repack_pack *pack =
            p->n_packs ? bsearch(names[i], p->packs, p->n_packs, sizeof(*p->packs), by_name) : NULL;
        if (pack)
            pack->pinned = true;
    }
}

/* ---- what is needed ---- */

static uint64_t bits(unsigned first, unsigned n)
{
    return (n >= 64 ? UINT64_MAX : ((uint64_t)1 << n) - 1) << first;
}

static unsigned count(uint64_t set)
{
    return (unsigned)__builtin_popcountll(set);
}

/* Which pages of each of its chunks a map needs, for pages or as bases; the caller's. */
static uint64_t *needs_of(const struct memory *m)
{
    uint64_t *need = mem_zalloc((m->n_chunks + 1) * sizeof(*need));
    for (const struct memory_extent *e = m->extents; e < m->extents + m->n_extents; e++)
        if (e->chunk != MEMORY_ZERO)
            need[e->chunk] |= bits(e->at, e->pages);
    for (const struct memory_base *b = m->bases; b < m->bases + m->n_bases; b++)
        need[b->of] |= bits(b->of_at, b->pages);
    return need;
}

/* Some pages of a chunk in stored bytes, with what the index of the pack says of them. */
static uint64_t share(const struct memory_chunk *c, uint64_t set)
{
    uint64_t all = c->stored + ENTRY + (uint64_t)c->pages * PAGE_NAME_LEN;
    return all * count(set) / c->pages;
}

static void move(struct repack_source *s, uint64_t set)
{
    s->move |= memory_has_changes(&s->chunk) && set ? s->live : set & s->live;
}

/* ---- scattered checkpoints ---- */

/* What it costs to read a checkpoint but for what newer ones have. */
struct cost {
    uint64_t reads, bytes, needed;
    const struct memory_chunk *last;
};

static void add_cost(struct cost *c, const struct memory_chunk *chunk, uint64_t need)
{
    c->reads += !c->last || !memory_chunk_goes_on(c->last, chunk);
    c->bytes += chunk->stored;
    c->needed += share(chunk, need);
    c->last = chunk;
}

static bool is_scattered(const struct cost *c)
{
    uint64_t best = (1 + c->needed / PACK_TARGET) * READ_COST + c->needed;
    return c->reads * READ_COST + c->bytes > best + best / 2 + SLACK;
}

/* need: by source, of this map */
static void plan_map(struct repack_plan *p, const uint64_t *need)
{
    struct cost c = {0};
    for (size_t i = 0; i < p->n_sources; i++) {
        const struct repack_source *s = &p->sources[i];
        if ((need[i] & ~s->settled) && !p->packs[s->chunk.pack].pinned)
            add_cost(&c, &s->chunk, need[i]);
    }
    bool scattered = is_scattered(&c);
    for (size_t i = 0; i < p->n_sources; i++) {
        struct repack_source *s = &p->sources[i];
        if (scattered && !p->packs[s->chunk.pack].pinned)
            move(s, need[i] & ~s->settled);
        s->settled |= need[i];
    }
}

static void plan_maps(struct repack_plan *p)
{
    CLEANUP(mem_freep) uint64_t *need = mem_alloc((p->n_sources + 1) * sizeof(*need));
    for (int round = 0; round < 2; round++) /* first what is live at all */
        for (size_t i = 0; i < p->n_maps; i++) {
            CLEANUP(mem_freep) uint64_t *own = needs_of(p->maps[i]);
            memset(need, 0, p->n_sources * sizeof(*need));
            for (size_t c = 0; c < p->maps[i]->n_chunks; c++)
                need[p->source_of[i][c]] |= own[c];
            for (size_t k = 0; round == 0 && k < p->n_sources; k++)
                p->sources[k].live |= need[k];
            if (round == 1)
                plan_map(p, need);
        }
}

/* ---- packs that are mostly garbage ---- */

static void count_kept(struct repack_plan *p)
{
    for (size_t i = 0; i < p->n_packs; i++)
        p->packs[i].kept = 0;
    for (size_t i = 0; i < p->n_sources; i++) {
        const struct repack_source *s = &p->sources[i];
        if (s->live & ~s->move) /* at least a byte, or the pack would seem to be free */
            p->packs[s->chunk.pack].kept += share(&s->chunk, s->live & ~s->move) + 1;
    }
}

static void plan_packs(struct repack_plan *p)
{
    count_kept(p);
    for (size_t i = 0; i < p->n_sources; i++) {
        struct repack_source *s = &p->sources[i];
        const struct repack_pack *pack = &p->packs[s->chunk.pack];
        if (!pack->pinned && pack->kept < pack->size - pack->size / 4)
            move(s, s->live);
    }
    count_kept(p);
}

void repack_plan_make(const struct memory *const *maps, size_t n_maps, const repack_name *pinned,
                      size_t n_pinned, struct repack_plan *out)
{
    *out = (struct repack_plan){.maps = maps, .n_maps = n_maps};
    find_sources(out);
    pin(out, pinned, n_pinned);
    plan_maps(out);
    plan_packs(out);
}

void repack_plan_done(struct repack_plan *p)
{
    for (size_t i = 0; p->source_of && i < p->n_maps; i++)
        free(p->source_of[i]);
    free(p->source_of);
    free(p->sources);
    free(p->packs);
    *p = (struct repack_plan){0};
}

bool repack_plan_touches(const struct repack_plan *p, size_t map)
{
    CLEANUP(mem_freep) uint64_t *need = needs_of(p->maps[map]);
    for (size_t c = 0; c < p->maps[map]->n_chunks; c++)
        if (need[c] & p->sources[p->source_of[map][c]].move)
            return true;
    return false;
}

uint64_t repack_plan_moved(const struct repack_plan *p)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < p->n_sources; i++)
        bytes += share(&p->sources[i].chunk, p->sources[i].move);
    return bytes;
}

uint64_t repack_plan_freed(const struct repack_plan *p)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < p->n_packs; i++)
        bytes += p->packs[i].kept ? 0 : p->packs[i].size;
    return bytes;
}

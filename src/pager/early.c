#include "pager/early.h"

#include "base/compiler.h"
#include "base/mem.h"

#include <stdlib.h>
#include <sys/mman.h>

#define BLOCK ((size_t)2 << 20) /* goes back as a whole: a huge page, where there are such */
#define PER_BLOCK (BLOCK / MEMORY_CHUNK)

/* GIVING_KEPT: it was expanded before */
enum state { TO_COME, EXPANDING, EXPANDED, GIVING, GIVING_KEPT, GIVEN };

/* An extent, by its pages. */
struct spot {
    uint32_t stream, pages;
    uint64_t first, at; /* at: its first page among all of the set */
};

struct early {
    size_t n, n_given;
    size_t to_expand, to_give; /* none before is left */
    uint8_t *states;           /* of the chunks */
    uint8_t *memory;           /* of the first n_kept, by whole blocks */
    size_t n_kept;
    uint8_t *in_use; /* of a block: chunks that are not given yet */
    struct spot *spots;
    size_t n_spots;
};

static int by_page(const void *a, const void *b)
{
    const struct spot *x = a, *y = b;
    if (x->stream != y->stream)
        return x->stream < y->stream ? -1 : 1;
    return (x->first > y->first) - (x->first < y->first);
}

static void find_spots(struct early *e, const struct workingset *set)
{
    uint64_t at = 0;
    e->n_spots = set->n_extents;
    e->spots = mem_alloc((e->n_spots + 1) * sizeof(*e->spots));
    for (size_t i = 0; i < e->n_spots; i++) {
        const struct workingset_extent *x = &set->extents[i];
        e->spots[i] = (struct spot){x->stream, x->pages, x->first, at};
        at += x->pages;
    }
    if (e->n_spots > 1)
        qsort(e->spots, e->n_spots, sizeof(*e->spots), by_page);
}

/* Without it everything is expanded when it is given. */
static void find_memory(struct early *e, size_t budget)
{
    size_t kept = budget / MEMORY_CHUNK < e->n ? budget / MEMORY_CHUNK : e->n;
    size_t blocks = (kept + PER_BLOCK - 1) / PER_BLOCK;
    if (blocks == 0)
        return;
    void *memory = mmap(NULL, blocks * BLOCK, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return;
    (void)madvise(memory, blocks * BLOCK, MADV_HUGEPAGE); /* touched at once, far sooner */
    e->memory = memory;
    e->n_kept = kept;
    e->in_use = mem_zalloc(blocks);
    for (size_t i = 0; i < kept; i++)
        e->in_use[i / PER_BLOCK]++;
}

struct early *early_new(const struct workingset *set, size_t budget)
{
    struct early *e = mem_zalloc(sizeof(*e));
    if (!set)
        return e;
    e->n = set->n_chunks;
    e->states = mem_zalloc(e->n + 1);
    find_spots(e, set);
    find_memory(e, budget);
    return e;
}

void early_freep(struct early **p)
{
    struct early *e = STEAL(*p);
    if (!e)
        return;
    if (e->memory)
        (void)munmap(e->memory, (e->n_kept + PER_BLOCK - 1) / PER_BLOCK * BLOCK);
    free(e->states);
    free(e->in_use);
    free(e->spots);
    free(e);
}

size_t early_expand(struct early *e)
{
    while (e->to_expand < e->n_kept && e->states[e->to_expand] != TO_COME)
        e->to_expand++;
    if (e->to_expand >= e->n_kept)
        return EARLY_NONE;
    e->states[e->to_expand] = EXPANDING;
    return e->to_expand++;
}

static void let_go(struct early *e, size_t chunk)
{
    size_t block = chunk / PER_BLOCK;
    if (chunk < e->n_kept && --e->in_use[block] == 0)
        (void)madvise(e->memory + block * BLOCK, BLOCK, MADV_DONTNEED);
}

void early_expanded(struct early *e, size_t chunk, bool good)
{
    e->states[chunk] = good ? EXPANDED : TO_COME;
}

size_t early_give(struct early *e)
{
    while (e->to_give < e->n && e->states[e->to_give] >= GIVING)
        e->to_give++;
    for (size_t i = e->to_give; i < e->n; i++)
        if (early_give_this(e, i))
            return i;
    return EARLY_NONE;
}

bool early_give_this(struct early *e, size_t chunk)
{
    if (e->states[chunk] != TO_COME && e->states[chunk] != EXPANDED)
        return false;
    e->states[chunk] = e->states[chunk] == TO_COME ? GIVING : GIVING_KEPT;
    return true;
}

bool early_given(struct early *e, size_t chunk)
{
    e->states[chunk] = GIVEN;
    let_go(e, chunk);
    return ++e->n_given == e->n;
}

bool early_in_hand(const struct early *e, size_t chunk)
{
    uint8_t state = e->states[chunk];
    return state == EXPANDING || state == GIVING || state == GIVING_KEPT;
}

size_t early_find(const struct early *e, uint32_t stream, uint64_t page)
{
    size_t low = 0, high = e->n_spots;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct spot *x = &e->spots[middle];
        if (x->stream < stream || (x->stream == stream && x->first + x->pages <= page))
            low = middle + 1;
        else
            high = middle;
    }
    const struct spot *x = low < e->n_spots ? &e->spots[low] : NULL;
    if (!x || x->stream != stream || x->first > page)
        return EARLY_NONE;
    return (size_t)((x->at + page - x->first) / MEMORY_CHUNK_PAGES);
}

uint8_t *early_data(const struct early *e, size_t chunk)
{
    return e->states[chunk] == GIVING ? NULL : e->memory + chunk * MEMORY_CHUNK;
}

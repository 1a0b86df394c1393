#include "pager/regions.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define WORD_BITS 64U

static uint64_t end_of(const struct region *g)
{
    return g->address + g->pages * REGIONS_PAGE;
}

/* ---- bits ---- */

static uint64_t word_at(const struct region *g, uint64_t bit)
{
    return __atomic_load_n(&g->bits[bit / WORD_BITS], __ATOMIC_RELAXED);
}

static bool is_missing(const struct region *g, uint64_t page)
{
    uint64_t bit = g->bit + page;
    return word_at(g, bit) >> (bit % WORD_BITS) & 1;
}

/* The first page at or behind `page` that is missing, or not missing; at most g->pages. */
static uint64_t next_page(const struct region *g, uint64_t page, bool missing)
{
    while (page < g->pages) {
        uint64_t bit = g->bit + page, word = word_at(g, bit);
        word = (missing ? word : ~word) >> (bit % WORD_BITS);
        if (word) {
            page += (uint64_t)__builtin_ctzll(word);
            return page < g->pages ? page : g->pages;
        }
        page += WORD_BITS - bit % WORD_BITS;
    }
    return g->pages;
}

/* Clear the bits of some pages; how many were set. */
static uint64_t clear_pages(struct region *g, uint64_t page, uint64_t n)
{
    uint64_t cleared = 0;
    while (n > 0) {
        uint64_t bit = g->bit + page, shift = bit % WORD_BITS, here = WORD_BITS - shift;
        here = here < n ? here : n;
        uint64_t mask = (here == WORD_BITS ? ~(uint64_t)0 : ((uint64_t)1 << here) - 1) << shift;
        uint64_t was = __atomic_fetch_and(&g->bits[bit / WORD_BITS], ~mask, __ATOMIC_RELAXED);
        cleared += (uint64_t)__builtin_popcountll(was & mask);
        page += here;
        n -= here;
    }
    return cleared;
}

/* ---- the table ---- */

/* Index of the first region that ends behind the address. */
static size_t index_of(const struct regions *r, uint64_t address)
{
    size_t low = 0, high = r->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (end_of(&r->list[middle]) <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void insert(struct regions *r, size_t at, struct region g)
{
    if ((r->n & (r->n - 1)) == 0)
        r->list = mem_realloc(r->list, (r->n ? r->n * 2 : 1) * sizeof(*r->list));
    memmove(&r->list[at + 1], &r->list[at], (r->n - at) * sizeof(*r->list));
    r->list[at] = g;
    r->n++;
}

static void drop(struct regions *r, size_t at, size_t n)
{
    if (n == 0)
        return;
    memmove(&r->list[at], &r->list[at + n], (r->n - at - n) * sizeof(*r->list));
    r->n -= n;
}

static struct region part_of(const struct region *g, uint64_t page, uint64_t pages)
{
    struct region part = *g;
    part.address += page * REGIONS_PAGE;
    part.first += page;
    part.bit += page;
    part.pages = pages;
    return part;
}

/* Let a region begin at the address, if one reaches over it. */
static void split(struct regions *r, uint64_t address)
{
    size_t i = index_of(r, address);
    if (i == r->n || r->list[i].address >= address)
        return;
    struct region whole = r->list[i];
    uint64_t before = (address - whole.address) / REGIONS_PAGE;
    r->list[i] = part_of(&whole, 0, before);
    insert(r, i + 1, part_of(&whole, before, whole.pages - before));
}

static uint64_t *new_map(struct regions *r, uint64_t pages)
{
    size_t bytes = (size_t)(pages / WORD_BITS + 1) * sizeof(uint64_t);
    if ((r->n_maps & (r->n_maps - 1)) == 0)
        r->maps = mem_realloc(r->maps, (r->n_maps ? r->n_maps * 2 : 1) * sizeof(void *));
    return r->maps[r->n_maps++] = mem_zalloc(bytes);
}

void regions_add(struct regions *r, uint64_t address, uint64_t pages, uint32_t stream,
                 uint64_t first)
{
    uint64_t *bits = new_map(r, pages);
    for (uint64_t i = 0; i < pages / WORD_BITS; i++)
        bits[i] = ~(uint64_t)0;
    bits[pages / WORD_BITS] = ((uint64_t)1 << (pages % WORD_BITS)) - 1;
    insert(r, index_of(r, address), (struct region){address, pages, first, stream, bits, 0});
    r->missing += pages;
}

/* Never empty, also if another thread has given its first page meanwhile. */
static struct regions_run run_of(const struct region *g, uint64_t page, uint64_t max)
{
    uint64_t end = next_page(g, page + 1, false);
    return (struct regions_run){.address = g->address + page * REGIONS_PAGE,
                                .pages = end - page < max ? end - page : max,
                                .first = g->first + page,
                                .stream = g->stream};
}

bool regions_find(const struct regions *r, uint64_t address, uint64_t max, struct regions_run *out)
{
    size_t i = index_of(r, address);
    if (i == r->n || r->list[i].address > address)
        return false;
    const struct region *g = &r->list[i];
    uint64_t page = (address - g->address) / REGIONS_PAGE;
    if (!is_missing(g, page))
        return false;
    *out = run_of(g, page, max);
    return true;
}

bool regions_next(const struct regions *r, uint64_t address, uint64_t max, struct regions_run *out)
{
    for (size_t i = index_of(r, address); i < r->n; i++) {
        const struct region *g = &r->list[i];
        uint64_t from = address > g->address ? (address - g->address) / REGIONS_PAGE : 0;
        uint64_t page = next_page(g, from, true);
        if (page == g->pages)
            continue;
        *out = run_of(g, page, max);
        return true;
    }
    return false;
}

void regions_filled(struct regions *r, uint64_t address, uint64_t pages)
{
    uint64_t end = address + pages * REGIONS_PAGE, cleared = 0;
    for (size_t i = index_of(r, address); i < r->n && r->list[i].address < end; i++) {
        struct region *g = &r->list[i];
        uint64_t from = address > g->address ? (address - g->address) / REGIONS_PAGE : 0;
        uint64_t to = end < end_of(g) ? (end - g->address) / REGIONS_PAGE : g->pages;
        cleared += clear_pages(g, from, to - from);
    }
    (void)__atomic_fetch_sub(&r->missing, cleared, __ATOMIC_RELAXED);
}

void regions_cut(struct regions *r, uint64_t address, uint64_t len)
{
    uint64_t end = address + len;
    split(r, address);
    split(r, end);
    size_t i = index_of(r, address), n = 0;
    for (; i + n < r->n && r->list[i + n].address < end; n++)
        r->missing -= clear_pages(&r->list[i + n], 0, r->list[i + n].pages);
    drop(r, i, n);
}

/* ---- what is not in its place ---- */

static void put_aside(struct regions_aside *a, struct region g)
{
    if ((a->n & (a->n - 1)) == 0)
        a->list = mem_realloc(a->list, (a->n ? a->n * 2 : 1) * sizeof(*a->list));
    a->list[a->n++] = g;
}

static void drop_aside(struct regions_aside *a, size_t at)
{
    memmove(&a->list[at], &a->list[at + 1], (a->n - at - 1) * sizeof(*a->list));
    a->n--;
}

/* The oldest one aside at an address, cut so that it begins there; false: none.  In any case
 * *out_end is brought down to where the answer becomes another one. */
static bool take_aside(struct regions_aside *a, uint64_t address, uint64_t *out_end,
                       struct region *out)
{
    for (size_t i = 0; i < a->n; i++) {
        struct region g = a->list[i];
        if (end_of(&g) <= address)
            continue;
        if (g.address > address) {
            *out_end = g.address < *out_end ? g.address : *out_end;
            continue;
        }
        *out_end = end_of(&g) < *out_end ? end_of(&g) : *out_end;
        uint64_t from = (address - g.address) / REGIONS_PAGE;
        uint64_t to = (*out_end - g.address) / REGIONS_PAGE;
        drop_aside(a, i);
        if (from > 0)
            put_aside(a, part_of(&g, 0, from));
        if (to < g.pages)
            put_aside(a, part_of(&g, to, g.pages - to));
        *out = part_of(&g, from, to - from);
        return true;
    }
    return false;
}

/* Whatever still lies there has gone, and we shall hear where to. */
static void displace(struct regions *r, uint64_t address, uint64_t len)
{
    split(r, address);
    split(r, address + len);
    size_t i = index_of(r, address), n = 0;
    for (; i + n < r->n && r->list[i + n].address < address + len; n++)
        put_aside(&r->late, r->list[i + n]); /* also when nothing is missing: its event is owed */
    drop(r, i, n);
}

bool regions_miss_late(const struct regions *r)
{
    for (size_t i = 0; i < r->late.n; i++)
        if (next_page(&r->late.list[i], 0, true) < r->late.list[i].pages)
            return true;
    return false;
}

void regions_unmap(struct regions *r, uint64_t address, uint64_t len)
{
    struct region g;
    for (uint64_t at = address, end = address + len, next; at < end; at = next) {
        next = end;
        if (take_aside(&r->vacated, at, &next, &g))
            continue;
        if (take_aside(&r->late, at, &next, &g))
            r->missing -= clear_pages(&g, 0, g.pages);
        else
            regions_cut(r, at, next - at);
    }
}

/* Take the regions of a range out of the table. */
static void lift(struct regions *r, uint64_t address, uint64_t end, struct regions *out)
{
    split(r, address);
    split(r, end);
    size_t i = index_of(r, address), n = 0;
    for (; i + n < r->n && r->list[i + n].address < end; n++)
        insert(out, out->n, r->list[i + n]);
    drop(r, i, n);
}

void regions_move(struct regions *r, uint64_t from, uint64_t to, uint64_t len)
{
    struct regions moved = {.list = NULL};
    struct region g;
    for (uint64_t at = from, end = from + len, next; at < end; at = next) {
        next = end;
        if (take_aside(&r->late, at, &next, &g))
            insert(&moved, moved.n, g);
        else
            lift(r, at, next, &moved);
    }
    displace(r, to, len);
    for (size_t i = 0; i < moved.n; i++) {
        moved.list[i].address = moved.list[i].address - from + to;
        insert(r, index_of(r, moved.list[i].address), moved.list[i]);
    }
    free(moved.list);
    put_aside(&r->vacated, (struct region){.address = from, .pages = len / REGIONS_PAGE});
}

/* With bits of its own, in the memory of another table. */
static struct region clone_region(const struct region *g, struct regions *to)
{
    uint64_t *bits = new_map(to, g->pages), page = 0;
    while ((page = next_page(g, page, true)) < g->pages) {
        bits[page / WORD_BITS] |= (uint64_t)1 << (page % WORD_BITS);
        to->missing++;
        page++;
    }
    return (struct region){g->address, g->pages, g->first, g->stream, bits, 0};
}

void regions_clone(const struct regions *r, struct regions *out)
{
    struct regions copy = {.missing = 0};
    for (size_t i = 0; i < r->n; i++)
        insert(&copy, copy.n, clone_region(&r->list[i], &copy));
    *out = copy; /* what is late had gone from the child before it was made */
}

uint64_t regions_missing(const struct regions *r)
{
    return __atomic_load_n(&r->missing, __ATOMIC_RELAXED);
}

void regions_done(struct regions *r)
{
    for (size_t i = 0; i < r->n_maps; i++)
        free(r->maps[i]);
    free(r->maps);
    free(r->list);
    free(r->late.list);
    free(r->vacated.list);
    *r = (struct regions){.list = NULL};
}

/* An earlier checkpoint that a new one is probably much like: which of its pages a new page may be
 * a change of.
 *
 * A page that is stored as a change refers to one that is stored whole: where the page that it is
 * like is a change itself, to that page's base.  So no chain is longer than one step, and a page
 * that has come to differ much from the base is stored whole again.
 *
 * Threads: constant after it was made, and safe; a look belongs to one thread.
 */
#pragma once

#include "store/page_reader.h"
#include "store/page_table.h"

#include <stdbool.h>

struct page_past;

/* r      must outlive it
 * reads  chunks that may be read for MEMORY_CHUNK_PAGES pages */
struct page_past *page_past_new(const struct page_reader *r, unsigned reads);
void page_past_freep(struct page_past **p);
const struct memory *page_past_memory(const struct page_past *p);

/* The number of a pack in its memory, UINT32_MAX: it refers to no such pack. */
uint32_t page_past_pack(const struct page_past *p, const char *name);
/* The number of the same chunk in its memory, UINT32_MAX: none.  c->pack is its pack's number there
 */
uint32_t page_past_chunk(const struct page_past *p, const struct memory_chunk *c);

/* Pages of a stream and pages that they are probably like. */
struct page_likes {
    struct page_like *list; /* ascending, disjoint */
    size_t n;
};

/* Pages first..first+n-1 are like those of a stream of the past from page `at` on.  What it does
 * not have is left out.  In ascending order. */
void page_likes_add(struct page_likes *l, const struct page_past *p, uint64_t first, uint64_t n,
                    uint32_t stream, uint64_t at);
void page_likes_done(struct page_likes *l);

/* What is found out of some consecutive pages. */
struct page_look {
    bool small[MEMORY_CHUNK_PAGES];              /* set: the page is stored as a change, and: */
    struct page_place bases[MEMORY_CHUNK_PAGES]; /* of which, by a number of the past's chunks */
    uint8_t *changes;                            /* what differs, for each page */
    uint8_t *scratch, *base;                     /* a chunk of the past: */
    uint32_t chunk;                              /* MEMORY_ZERO: none */
};

#define PAGE_LOOK_INIT                                                                             \
    {                                                                                              \
        .chunk = MEMORY_ZERO                                                                       \
    }

/* Compare pages with those that they are like.  What cannot be read counts for nothing: that it is
 * bad is for a scrub to say.
 * first   of the pages, in its stream
 * n       1..MEMORY_CHUNK_PAGES
 * wanted  of which pages it is to be found out */
void page_look(struct page_look *l, const struct page_past *p, const struct page_likes *likes,
               uint64_t first, const uint8_t *pages, unsigned n, const bool *wanted);
void page_look_done(struct page_look *l);

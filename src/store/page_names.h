/* What the pages of a checkpoint are called: equal names, equal pages.
 * Threads: constant after it was loaded. */
#pragma once

#include "store/pack.h"
#include "store/page_reader.h"

struct page_names {
    struct page_name *names; /* of all chunks' pages, one chunk after another */
    size_t *first;           /* of each chunk */
};

/* From the indexes of the packs that a memory map names.
 * out     the caller's, page_names_done()
 * errors  RC_NOT_FOUND, RC_DENIED (they are encrypted), RC_CORRUPT (a pack, or it has no such
 * chunk), RC_UNAVAILABLE, RC_IO */
enum rc page_names_load(struct backend *b, const struct memory *m, struct page_names *out,
                        struct err *err);
/* The same names from the pages themselves, which takes reading all of them. */
enum rc page_names_compute(const struct page_reader *r, struct page_names *out, struct err *err);
void page_names_done(struct page_names *n);

/* The name of a page of a stream, NULL when it is zero.  page < s->pages */
const struct page_name *page_names_find(const struct page_names *n, const struct memory *m,
                                        const struct memory_stream *s, uint64_t page);

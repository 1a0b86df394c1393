/* The checkpoint that was made of a program before: what its pages were then, by process and
 * address, so that of pages that have changed a little only the change is stored.
 *
 * Threads: constant after it was opened.
 */
#pragma once

#include "store/page_writer.h"
#include "store/store.h"

struct earlier;

/* Find and open it.  What there is not, or what cannot be used, is no error: more is stored then.
 * s       its packs are held until the object is freed
 * name    of the box, or NULL
 * parent  the checkpoint that the program was restored from, or NULL
 * d       to encrypt for: another domain's checkpoint is of no use
 * returns the caller's, earlier_freep(), before the store is closed; NULL: there is none */
struct earlier *earlier_open(struct store *s, const char *name, const char *parent,
                             const struct domain *d);
void earlier_freep(struct earlier **p);

/* For the options of a page writer.  e: may be NULL, also below */
const struct page_past *earlier_pages(const struct earlier *e);

/* Tell a writer what pages of a process or of shared memory are like.
 * map      name of the page map, "pagemap-1.img"
 * address  in the process; of shared memory the offset
 * first    of the pages, in the input.  See page_writer_like() */
void earlier_tell(const struct earlier *e, const char *map, uint64_t address, uint64_t pages,
                  const struct page_writer *w, struct page_input *in, uint64_t first);

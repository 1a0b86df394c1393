/* Where each page of a stream lies, while that is being found out; in the end it becomes extents.
 *
 * Threads: what differs in its pages may be set by several threads, the rest is for one.
 */
#pragma once

#include "store/memory.h"
#include "store/page_table.h"

#include <stdint.h>

/* Number of a chunk, and in the low bits the page inside it. */
typedef uint64_t page_ref;

#define PAGE_REF_ZERO UINT64_MAX       /* the page is zero */
#define PAGE_REF_NONE (UINT64_MAX - 1) /* nobody has said */

page_ref page_ref_of(uint32_t chunk, uint32_t page);
/* Of one that is neither ZERO nor NONE. */
struct page_place page_ref_place(page_ref r);

/* returns  `pages` of them, PAGE_REF_NONE; the caller's, free() */
page_ref *page_refs_new(uint64_t pages);

/* Add a stream of `pages` pages to a memory map, whose chunks are numbers of the references.
 * m       with room for the stream in its table
 * room    extents that the map's table has room for; 0 at first
 * errors  RC_INVALID (of some page nobody has said where it lies) */
enum rc page_refs_add_stream(const page_ref *refs, uint32_t id, uint64_t pages, struct memory *m,
                             size_t *room, struct err *err);

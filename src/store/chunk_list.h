/* The chunks and packs that somebody who makes memory maps knows of: those that the store has, and
 * those that are being filled.  They are numbered as they come; a memory map has only those that
 * its pages need, in the order in which a restore needs them.
 *
 * Threads: one at a time.
 */
#pragma once

#include "store/memory.h"
#include "store/page_table.h"

struct chunk_list {
    struct memory_pack *packs;
    struct memory_chunk *chunks; /* `pack` is a number of this list */
    struct page_place **bases;   /* of each chunk that holds changes, its pages'; else NULL */
    size_t n_packs, n_chunks, chunk_room;
};

/* returns the number of the new pack, or chunk, which says nothing yet */
uint32_t chunk_list_pack(struct chunk_list *l, const char *name, uint64_t size);
uint32_t chunk_list_chunk(struct chunk_list *l);
/* What a chunk of changes is changes of.
 * returns  a place for each of its pages, to be filled; the list's */
struct page_place *chunk_list_bases(struct chunk_list *l, uint32_t chunk, unsigned pages);

/* Of an empty list: all that a memory map refers to, by the numbers that it has there. */
void chunk_list_take(struct chunk_list *l, const struct memory *m);

/* Of a memory map that has only streams and extents, whose chunks are numbers of the list: number
 * the chunks and packs that it needs, bases among them, in the order in which they are first
 * needed.  Its tables of packs, chunks and bases are set. */
void chunk_list_number(const struct chunk_list *l, struct memory *m);

void chunk_list_done(struct chunk_list *l);

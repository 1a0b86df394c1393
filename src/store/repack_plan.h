/* Which pages of a store are worth being written anew, decided from memory maps alone.
 *
 * Two things are worth it.  A checkpoint is *scattered* when reading it costs half more again than
 * reading as many bytes one after another would, where each read costs as much as a MiB: then its
 * pages go into new packs, in the order in which a restore needs them.  Checkpoints take their turn
 * from the newest; what a newer one has is not moved for an older one, so that a second repack
 * finds nothing to do.  And a pack of which more than a quarter is needed by nobody is emptied.
 *
 * Packs that are *pinned*, since somebody refers to them whose map cannot be rewritten, stay as
 * they are: to copy out of them would only cost space.
 *
 * Threads: constant after it was made.
 */
#pragma once

#include "store/memory.h"

#include <stdbool.h>

/* A chunk that some map names; chunks of two maps are the same if all that the maps say is. */
struct repack_source {
    struct memory_chunk chunk; /* `pack` is a number of the plan */
    uint64_t live;             /* a bit for each page: some map needs it */
    uint64_t move;             /* of these, to be written anew; of changes all or none */
    uint64_t settled;          /* while planning: a newer checkpoint has it */
};

struct repack_pack {
    char name[MEMORY_PACK_NAME_LEN + 1];
    uint64_t size;
    uint64_t kept; /* about as many of its bytes are still needed afterwards; 0: it can go */
    bool pinned;
};

struct repack_plan {
    const struct memory *const *maps; /* borrowed */
    size_t n_maps;
    struct repack_source *sources;
    size_t n_sources;
    struct repack_pack *packs;
    size_t n_packs;
    uint32_t **source_of; /* for each map, of each of its chunks */
};

typedef char repack_name[MEMORY_PACK_NAME_LEN + 1];

/* maps    newest first; borrowed, must outlive the plan
 * pinned  names of packs, in any order
 * out     the caller's, repack_plan_done() */
void repack_plan_make(const struct memory *const *maps, size_t n_maps, const repack_name *pinned,
                      size_t n_pinned, struct repack_plan *out);
void repack_plan_done(struct repack_plan *p);

/* Whether a map needs a page that moves. */
bool repack_plan_touches(const struct repack_plan *p, size_t map);
/* About as many stored bytes move, and are in packs that nobody needs then. */
uint64_t repack_plan_moved(const struct repack_plan *p);
uint64_t repack_plan_freed(const struct repack_plan *p);

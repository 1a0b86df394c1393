/* Which packs of a store are looked into for pages that are known, best first: those that somebody
 * says are likely to have them, then the newest.
 *
 * Threads: one at a time.
 */
#pragma once

#include "backend/backend.h"
#include "store/memory.h"

#include <stddef.h>

struct pack_choice {
    char (*names)[MEMORY_PACK_NAME_LEN + 1]; /* best first */
    size_t n;
};

/* prefer  `n_prefer` names of packs, most likely first; borrowed for the call
 * max     of names
 * out     the caller's, pack_choice_done()
 * errors  what listing packs met */
enum rc pack_choice_make(struct backend *b, char *const *prefer, size_t n_prefer, size_t max,
                         struct pack_choice *out, struct err *err);
void pack_choice_done(struct pack_choice *c);

/* Where a program's pages, or pages much like them, are likely to be in a store already.
 * Threads: any number. */
#pragma once

#include "base/err.h"
#include "store/store.h"

#include <stddef.h>

/* Names of packs that the newest checkpoints refer to: first those of this box, then any; of each
 * checkpoint the packs that hold most of its pages come first.  A checkpoint that cannot be read
 * counts for nothing.
 * name  of the box, or NULL
 * out   the caller's, store_free_ids(); NULL-terminated
 * errors RC_DENIED, RC_IO (the store cannot be listed) */
enum rc store_recent_packs(struct store *s, const char *name, char ***out, size_t *out_n,
                           struct err *err);

/* The newest checkpoint of a box, if one is found among the newest of the store; in object storage,
 * which does not tell what is new, among those whose ids begin with the box's name, the last ones
 * by id.
 * name     or NULL
 * returns  the caller's, store_entry_freep(); NULL: none, or it cannot be opened */
struct store_entry *store_recent_entry(struct store *s, const char *name);

/* Collection of packs that no checkpoint refers to.  Threads: any number, also in other processes.
 */
#pragma once

#include "base/err.h"
#include "store/store.h"

struct store_collected {
    uint64_t packs, bytes; /* removed */
    uint64_t kept, kept_bytes;
    uint64_t young; /* what crashed makers have left in the last STORE_YOUNG_S seconds: it stays,
                       for it may be a maker's that has only just begun */
};

/* Mark and sweep.  What a deleted checkpoint refers to stays while somebody reads it.  Nothing is
 * collected while a checkpoint is being made anywhere (RC_UNAVAILABLE), nor when a checkpoint is
 * there of which cannot be told what it needs.  Also removes what crashed makers of checkpoints
 * have left, with `dry` not.
 * dry     only count
 * errors  RC_UNAVAILABLE, RC_CORRUPT (which checkpoint), RC_IO; packs that were removed before the
 *         failure were garbage */
enum rc store_gc(struct store *s, bool dry, struct store_collected *out, struct err *err);
/* Only count what store_gc() would do if these checkpoints had been deleted.
 * ids     NULL-terminated, borrowed */
enum rc store_gc_without(struct store *s, char *const *ids, struct store_collected *out,
                         struct err *err);

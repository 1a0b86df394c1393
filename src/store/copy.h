/* A checkpoint from one store into another; what is there already is not sent again.
 *
 * An encrypted one is copied as it is, with its wrapped data keys, also by who has no key; its
 * memory can then not be verified on the way.
 *
 * Packs go first, by name: one that the other store has is not read.  Then the files, with the
 * manifest and whatever vouches for it as they are, and last the marker.  So a copy that breaks off
 * has published nothing, and the next one goes on with the packs that are still missing.
 *
 * Threads: safe.
 */
#pragma once

#include "base/err.h"
#include "store/store.h"

struct store_copied {
    uint64_t packs, bytes;             /* sent */
    uint64_t packs_there, bytes_there; /* not sent, because the other store had them */
    bool there;                        /* nothing was to be done */
};

/* Copy a checkpoint.  Every file is compared with the manifest, every chunk of memory with the
 * digest that goes with it, on the way.
 * replace  one of this id that is not the same
 * threads  that send packs, at least 1
 * done     counted up atomically by the bytes read; may be NULL
 * errors   RC_NOT_FOUND, RC_CORRUPT (the source), RC_EXISTS (another of this id is there and
 *          `replace` is false), or what the stores met; then nothing has appeared but packs, which
 *          the next copy finds and store_gc() removes */
enum rc store_copy(struct store *from, const char *id, struct store *to, bool replace,
                   unsigned threads, uint64_t *done, struct store_copied *out, struct err *err);

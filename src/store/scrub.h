/* Reading all of a store to find what has gone bad, and getting it back from another one.
 * Threads: any number; each starts its own. */
#pragma once

#include "base/err.h"
#include "store/store.h"

#include <stddef.h>
#include <stdint.h>

struct scrub_item {
    char *name;     /* id of a checkpoint, or name of a pack */
    char *why;      /* what is wrong with it; NULL: whole */
    enum rc rc;     /* RC_OK: whole */
    uint64_t bytes; /* of a pack; of a checkpoint its files */
};

struct scrub {
    struct scrub_item *checkpoints, *packs;
    size_t n_checkpoints, n_packs;
    size_t damaged; /* of both */
};

/* Compare every byte of every checkpoint and pack with its digest; each pack is read once.  A pack
 * whose index alone is damaged is damaged, and the checkpoints that it serves may still be whole.
 * Of encrypted checkpoints the memory is read only where the store has been given the key; without
 * it such a checkpoint is not whole: RC_DENIED, when its files are.
 * done    counted up atomically by the bytes read; may be NULL
 * out     the caller's, scrub_done(); RC_OK whatever was found
 * errors  RC_DENIED, RC_IO (the store cannot be listed) */
enum rc store_scrub(struct store *s, unsigned threads, uint64_t *done, struct scrub *out,
                    struct err *err);
void scrub_done(struct scrub *s);

struct repair {
    size_t files, packs; /* that were replaced */
    uint64_t bytes;      /* of these */
};

/* Replace what is damaged or missing of a checkpoint by what another store has under the same
 * names.  Whatever is brought in was verified before.  Nothing that is whole is touched.
 * Files of encrypted checkpoints need no key; their memory is not brought back (RC_UNSUPPORTED).
 * errors  RC_NOT_FOUND (the other store has no such checkpoint, or a pack is nowhere whole),
 *         RC_CONFLICT (it has another checkpoint of this id), RC_NO_SPACE, RC_IO */
enum rc store_repair(struct store *s, struct store *from, const char *id, struct repair *out,
                     struct err *err);

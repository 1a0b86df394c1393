/* Repacking: memory that lies scattered, or among what nobody needs, is written into new packs, and
 * the checkpoints that need it get new memory maps (docs/formats/pack.md, "Repacking").
 *
 * It is safe beside everything else.  New packs come first; then each checkpoint is exchanged with
 * one rename for one that has the same files, but another `memory`, and only if it is still the one
 * that was looked at; old packs are left to store_gc(), which takes none that somebody needs.  Who
 * is ended in between leaves whole checkpoints, and packs that the next collection removes.
 *
 * Threads: any number, also in other processes; a second one finds nothing to do.
 */
#pragma once

#include "base/err.h"
#include "store/store.h"

/* A checkpoint that is left as it is, although it may be scattered. */
struct repack_left {
    char *id, *why;
};

struct repacked {
    uint64_t checkpoints; /* that got a new memory map */
    uint64_t moved;       /* bytes of new packs; dry: about as many */
    uint64_t freed;       /* of packs that nobody needs now, about; they go with store_gc() */
    struct repack_left *left;
    size_t n_left;
};

struct repack_options {
    bool dry;             /* only count */
    char *const *without; /* NULL-terminated ids: as if these were gone; or NULL */
    uint64_t *done;       /* counted up atomically by the bytes of pages that moved; may be NULL */
};

/* Left as they are: checkpoints that cannot be read (encrypted, and no key is here, or not the one
 * that new ones are encrypted with; damaged), and signed ones unless the vault has a signer and
 * they were signed by him or by somebody whom it trusts: then they are signed by him anew. out the
 * caller's, repacked_done() errors  RC_UNSUPPORTED (object storage), RC_UNAVAILABLE (packs are
 * being collected), RC_CORRUPT (which pack), RC_NO_SPACE, RC_IO; then every checkpoint is as it
 * was, or exchanged */
enum rc store_repack(struct store *s, const struct repack_options *o, struct repacked *out,
                     struct err *err);
void repacked_done(struct repacked *r);

/* Packs compared with themselves and with who refers to them.  Threads: safe. */
#pragma once

#include "store/pack.h"

/* Read the index of a pack and every chunk, and compare them with their digests.
 * done    counted up atomically by the bytes read; may be NULL
 * out     the index; the caller's, pack_index_done()
 * errors  RC_NOT_FOUND, RC_DENIED (it is encrypted), RC_CORRUPT (index, or which chunk),
 *         RC_UNSUPPORTED, RC_UNAVAILABLE, RC_IO */
enum rc pack_check(struct backend *b, const char *name, uint64_t *done, struct pack_index *out,
                   struct err *err);

/* Whether an index has a chunk at the same place with the same digest and form, and as which. */
bool pack_find(const struct pack_index *x, const struct memory_chunk *c, size_t *out);
bool pack_has(const struct pack_index *x, const struct memory_chunk *c);

/* Put the pack of this name from one storage in the place of that in another, which may be damaged
 * or absent.  Its bytes are verified on the way, before anything is removed.
 * errors  RC_NOT_FOUND (`from` has none), RC_DENIED (it is encrypted), RC_CORRUPT (it has a damaged
 * one, or one without a chunk that `m` needs of it), RC_NO_SPACE, RC_IO */
enum rc pack_bring(struct backend *from, struct backend *to, const struct memory *m, uint32_t pack,
                   uint64_t *out_bytes, struct err *err);

/* How much a store may hold, for everybody who uses it: `<base>/.quota`, a number of bytes as text.
 *
 * What counts is packs, the files of whole checkpoints and what is recorded of working sets.  A
 * checkpoint is measured when it is published; several that are made at the same time may each fit
 * and together not. Threads: any number, also in other processes. */
#pragma once

#include "base/err.h"
#include "store/store.h"

#include <stdint.h>

#define STORE_QUOTA ".quota"

/* bytes: 0 = no quota.  durable on RC_OK.  errors RC_UNSUPPORTED (object storage), RC_DENIED,
 * RC_NO_SPACE, RC_IO */
enum rc store_set_quota(struct store *s, uint64_t bytes, struct err *err);
/* out: 0 = none.  errors RC_CORRUPT (no number), RC_DENIED, RC_IO */
enum rc store_quota(const struct store *s, uint64_t *out, struct err *err);
/* Bytes that are used. */
enum rc store_used(const struct store *s, uint64_t *out, struct err *err);
/* Whether so many bytes more would fit; without a quota nothing is measured.
 * errors RC_NO_SPACE (which says how much there is), RC_CORRUPT, RC_IO */
enum rc store_fits(const struct store *s, uint64_t bytes, struct err *err);

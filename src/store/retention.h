/* Which checkpoints have had their time.  Threads: safe. */
#pragma once

#include "base/err.h"
#include "store/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A checkpoint stays if any rule keeps it; without a rule all stay. */
struct retention {
    uint64_t keep_last;      /* the newest of its group; 0 = no such rule */
    uint64_t keep_within_ns; /* those younger than this; 0 = no such rule */
    bool per_name;           /* each box is a group of its own, else all checkpoints are one */
};

struct retention_item {
    const char *id, *name;  /* name: of the box, or NULL */
    const char *created_at; /* UTC, RFC 3339; NULL: unknown, such a one stays */
};

/* out_retire  for each item whether it goes */
void retention_choose(const struct retention *r, const struct retention_item *items, size_t n,
                      bool *out_retire);

/* Delete what has had its time (dry: only say it).  Checkpoints that cannot be used are left alone,
 * and with per_name encrypted ones for which the store has no key.
 * out     ids, NULL-terminated; the caller's, store_free_ids()
 * errors  RC_DENIED, RC_IO; some may be deleted then */
enum rc store_retire(struct store *s, const struct retention *r, bool dry, char ***out,
                     struct err *err);

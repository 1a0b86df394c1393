/* Pages that differ between two checkpoints, by process and kind of memory.  Threads: safe. */
#pragma once

#include "criu/images.h"
#include "store/store.h"

struct memory_diff_row {
    uint32_t pid; /* 0: shared memory */
    enum cr_memory kind;
    uint64_t same, changed, added, removed; /* pages */
};

/* Compare the page maps of two checkpoints of one store, page by page by their names; nothing but
 * indexes is read of packed memory, if it is not encrypted.
 * out     rows with a difference or without, by process; the caller's (free)
 * errors  RC_CORRUPT, RC_IO */
enum rc memory_diff(struct store *s, struct store_entry *a, struct store_entry *b,
                    struct memory_diff_row **out, size_t *out_n, struct err *err);

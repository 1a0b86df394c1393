/* Which pages a program touched, in the order in which it did.  Threads: safe. */
#pragma once

#include "store/workingset.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct record_page {
    uint32_t stream;
    uint64_t page;
};

struct record {
    pthread_mutex_t lock;
    bool closed; /* takes no more; atomic */
    struct record_page *list;
    size_t n;
    uint64_t last_ns; /* when the last was added; atomic */
};

void record_init(struct record *r);
/* A page was touched.  Past WORKINGSET_PAGES_MAX, and once closed, it is not remembered. */
void record_add(struct record *r, uint32_t stream, uint64_t page);
void record_close(struct record *r);
/* The pages as extents: in windows that keep the order of touches, inside a window sorted, so that
 * neighbours become one extent; none twice.
 * before  extents that come first and are not repeated, e.g. of an older working set
 * out     the caller's (free) */
size_t record_extents(struct record *r, const struct workingset_extent *before, size_t n_before,
                      struct workingset_extent **out);
void record_done(struct record *r);

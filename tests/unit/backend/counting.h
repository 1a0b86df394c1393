/* A storage that counts what is read of it, by all processes that come from the test by fork().
 * Threads: safe. */
#pragma once

#include "backend/backend.h"

struct counting {
    uint64_t bytes, reads, stats, opens; /* atomic, shared */
    uint64_t delay_ms;                   /* of each read */
};

/* below: kept.  out_counts: lives as long as the process. */
struct backend *counting_new(struct backend *below, struct counting **out_counts);

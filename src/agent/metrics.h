/* Counters and histograms of the agent, as Prometheus reads them.  Threads: safe. */
#pragma once

#include "base/buf.h"

#include <stdint.h>

enum metric {
    METRIC_SUCCEEDED, /* captures, by how they ended */
    METRIC_FAILED,
    METRIC_RETRIED,
    METRIC_BYTES,        /* that checkpoints have added to the store */
    METRIC_MEMORY_BYTES, /* of the memory in them */
    METRIC_RESTORED,     /* containers, by how it ended */
    METRIC_RESTORE_FAILED,
    METRIC_WATCH_ERRORS, /* lists and watches of the API server that failed */
    METRIC_COUNT_,
};

enum metric_time {
    METRIC_TIME_CAPTURE, /* from the begin to the published checkpoint */
    METRIC_TIME_FREEZE,  /* while the processes stood still */
    METRIC_TIME_RESTORE, /* from the request to the running program */
    METRIC_TIME_COUNT_,
};

struct metrics;

struct metrics *metrics_new(void);
void metrics_freep(struct metrics **m);
void metrics_add(struct metrics *m, enum metric which, uint64_t n);
void metrics_time(struct metrics *m, enum metric_time which, uint64_t ns);
/* How many pods are watched, and how many of these wait for their turn. */
void metrics_set_pods(struct metrics *m, uint64_t watched, uint64_t waiting);

/* Append the text (exposition format 0.0.4). */
void metrics_format(struct metrics *m, struct buf *out);

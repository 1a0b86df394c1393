/* Threads that run jobs for the uploads and reads of one backend, so that what all of them keep in
 * memory and on the wire is bounded.  Threads are started when there is work.
 * Threads: everything may be called from any but a job; a group belongs to one. */
#pragma once

#include "base/compiler.h"

#include <stdint.h>

struct pool;

/* Jobs that somebody waits for together; zeroed at first. */
struct pool_group {
    unsigned running; /* guarded by the pool */
};

/* threads: at least 1.  The result is the caller's, pool_freep(); no group may be running then. */
struct pool *pool_new(unsigned threads);
void pool_freep(struct pool **p);

/* In a child of fork(), whose threads these are not: as if none had been started.  No job may have
 * been running when it forked. */
void pool_after_fork(struct pool *p);

/* Run `fn(arg)` soon.  Waits while as many jobs as there are threads have not been begun. */
void pool_add(struct pool *p, struct pool_group *g, void (*fn)(void *), void *arg);
/* Until all jobs of the group have ended. */
void pool_wait(struct pool *p, struct pool_group *g);

/* A storage with a cache on the local disk in front of it, for restores: what several processes of
 * a machine read of it comes over the network once.
 *
 * Packs are cached by name, since a pack never changes; checkpoints (`<id>.tar`) and working sets
 * by their tag, which is asked for at each opening.  Everything else, and everything that is
 * written, goes through.  A cache that fails is no failure: then the storage itself is read.
 *
 * Threads, forks: as backend.h says. */
#pragma once

#include "backend/backend.h"

struct cache_options {
    const char *dir;     /* see cache_disk.h */
    uint64_t bytes;      /* of it at most; at least CACHE_MIN */
    const char *storage; /* its URL: a cache serves several */
};

#define CACHE_MIN ((uint64_t)16 << 20)

/* below   kept on RC_OK
 * out     the caller's, backend_freep()
 * errors  RC_INVALID (too small), those of cache_disk_open() */
enum rc backend_cache_open(struct backend *below, const struct cache_options *o,
                           struct backend **out, struct err *err);

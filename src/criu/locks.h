/* The file locks of a checkpoint: what must be free for the tree to be restored.
 *
 * Images are outside bytes: every length is checked, memory is bounded.
 * Threads: none shared.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cr_lock {
    char *path;    /* of the file, as the tree sees it */
    bool flock;    /* flock(2); else a record lock: fcntl(2) */
    bool write;    /* exclusive */
    int64_t start; /* of a record lock */
    int64_t len;   /* 0 = to the end */
};

/* Read the locks of a directory of images; leases, and locks on what has no path, are left out.
 * out     the caller's, cr_locks_free()
 * errors  RC_CORRUPT (which image), RC_TOO_BIG, RC_IO; a tree without locks has none: RC_OK */
enum rc cr_locks_load(int dirfd, struct cr_lock **out, size_t *out_n, struct err *err);
void cr_locks_free(struct cr_lock *locks, size_t n);

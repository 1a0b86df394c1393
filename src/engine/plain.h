/* What CRIU gets to see of a checkpoint in plain format whose memory we write ourselves: a private
 * directory in memory with verified copies of the images, and with page images that hold only what
 * CRIU must restore.  The rest is written straight from the checkpoint's own page images, with
 * every task stopped (engine/plain_fill.h).
 *
 * A page image is verified as a whole: nothing is known of it before its last byte was read.  So
 * its bytes are hashed when they are written, and those that CRIU has got are hashed as it has got
 * them, out of our copy.
 *
 * Threads: a plain belongs to one thread.
 */
#pragma once

#include "base/err.h"
#include "store/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLAIN_KEPT UINT64_MAX

/* Pages of a page image that belong to the same. */
struct plain_part {
    uint64_t first, pages; /* in the checkpoint's image */
    uint64_t address;      /* where they are to be written, or PLAIN_KEPT: CRIU restores them */
    uint64_t at;           /* kept: the first one's number in our copy */
};

struct plain_image {
    char name[40]; /* "pages-1.img" */
    uint32_t pid;  /* inside its PID namespace; 0 = shared memory, all of it kept */
    int from;      /* the checkpoint's */
    int copy;      /* ours: the kept pages */
    uint64_t pages;
    struct plain_part *parts; /* one after another, all pages of the image */
    size_t n_parts;
    bool has_digest; /* else nobody knows it */
    struct digest digest;
};

struct plain {
    int dir; /* of images, for CRIU */
    struct plain_image *images;
    size_t n_images;
    uint64_t gap_bytes;   /* left to us */
    uint64_t eager_bytes; /* copied for CRIU */
};

#define PLAIN_INIT                                                                                 \
    {                                                                                              \
        .dir = -1                                                                                  \
    }

/* Look at a checkpoint in plain format.
 * out     the caller's, plain_done()
 * errors  RC_UNSUPPORTED (better left to CRIU as a whole: little that we could write, or much that
 *         would have to be copied; page images that are more than one checkpoint's), RC_DENIED (a
 *         private directory, or other processes' memory), RC_CORRUPT, RC_NO_SPACE, RC_IO */
enum rc plain_make(const struct store_entry *e, struct plain *out, struct err *err);
void plain_done(struct plain *p);

/* What CRIU gets to see of a packed checkpoint: a private directory in memory with verified copies
 * of the images and with page images that hold only what CRIU must restore itself.  The rest is
 * left to us: brought in with every task stopped (engine/fill.h), or while they run
 * (pager/pager.h).
 *
 * Threads: a view belongs to one thread.
 */
#pragma once

#include "base/err.h"
#include "pager/pager.h"
#include "store/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct view {
    int dir;                /* of images, for CRIU */
    struct pager_gap *gaps; /* by process, then by address; none crosses a mapping */
    size_t n_gaps;
    uint64_t gap_bytes;
    uint64_t eager_bytes;  /* that CRIU restores */
    uint64_t shared_bytes; /* of these because parent and child share them copy-on-write */
};

#define VIEW_INIT                                                                                  \
    {                                                                                              \
        .dir = -1                                                                                  \
    }

/* Make a view of a checkpoint whose pages are packed.
 * lazy    the page maps mention the gaps, for CRIU's option lazy-pages; else they are silent of
 * them out     the caller's, view_done() errors  RC_CORRUPT, RC_NO_SPACE (memory), RC_IO */
enum rc view_make(const struct store_entry *e, const struct page_reader *pages, bool lazy,
                  struct view *out, struct err *err);
void view_done(struct view *v);

/* A pager for a restore: which mode is possible, and what the pager must know of the restore.
 * Threads: a feed belongs to one thread. */
#pragma once

#include "base/err.h"
#include "engine/engine.h"
#include "engine/view.h"
#include "pager/pager.h"

/* Which mode a restore gets; when it is not the one that was asked for, the engine warns.
 * pages  of the checkpoint; NULL: its memory is not in packs
 * set    becomes the record of earlier restores, if there is one that may be of use; the caller's,
 *        workingset_done() */
enum engine_mode feed_mode(const struct engine *e, const struct engine_restore_request *req,
                           const struct page_reader *pages, struct workingset *set);

/* Start a pager for the gaps of a view.
 * work    CRIU's work directory
 * set     of feed_mode(), borrowed for the call
 * out     the caller's, pager_freep()
 * errors  RC_DENIED, RC_IO */
enum rc feed_start(const struct engine_restore_request *req, enum engine_mode mode,
                   const struct page_reader *pages, const struct view *v, int work,
                   const struct workingset *set, struct pager **out, struct err *err);

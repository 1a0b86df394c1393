/* Memory of a packed checkpoint, written into the processes that CRIU has restored, by several
 * threads.  What is read begins while CRIU still works; what is written waits until every task is
 * stopped.
 *
 * Threads: a fill belongs to one thread, and ends its own before fill_finish() returns. */
#pragma once

#include "base/err.h"
#include "engine/view.h"

#include <stdint.h>
#include <sys/types.h>

struct fill;

/* Begin to read what the gaps of a view need.
 * v, pages  borrowed until the end
 * done      counted up atomically to the gaps' bytes; borrowed likewise; may be NULL
 * out       the caller's, fill_freep()
 * errors    RC_CORRUPT (the checkpoint has no such pages) */
enum rc fill_begin(const struct view *v, const struct page_reader *pages, uint64_t *done,
                   struct fill **out, struct err *err);

/* Write it all.  Every task must be stopped.
 * in_namespace  some process of the PID namespace that the view's processes are in
 * errors        RC_CORRUPT (a chunk), RC_NOT_FOUND (a process was not restored), RC_DENIED, RC_IO
 */
enum rc fill_finish(struct fill *f, pid_t in_namespace, struct err *err);
/* Waits for reads that are under way.  NULL is fine. */
void fill_freep(struct fill **p);

/* Bulk fill: the pages that CRIU has left out, written into stopped processes by several threads
 * with process_vm_writev(), straight from packs.  No userfaultfd, nothing that can die under a
 * running program; huge pages where a mapping asks for them.
 *
 * Source of the idea and figures: CRIU's own restore is bound by one page fault for each 4 KiB in
 * one thread.
 */
#pragma once

#include "base/err.h"
#include "engine/view.h"

#include <sys/types.h>

/* Bring in all gaps of a view.
 * in_namespace  some process of the PID namespace that the tree is in
 * done          counted up atomically by the bytes written; may be NULL
 * errors        RC_CORRUPT (a chunk), RC_NOT_FOUND (a process is not there), RC_DENIED, RC_IO */
enum rc fill_gaps(const struct view *v, const struct page_reader *pages, pid_t in_namespace,
                  uint64_t *done, struct err *err);

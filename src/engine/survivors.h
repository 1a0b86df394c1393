/* What becomes of a tree whose CRIU dies in the middle of a dump.
 *
 * The kernel lets go of whatever CRIU has held, wherever that was, and what CRIU runs in a process
 * ends by itself when its socket closes.  What stays there is mended: memory of CRIU's, code that
 * it has put in the place of the program's, signals that it has blocked; who had been stopped by
 * job control is stopped again.  A thread that was just executing CRIU's code is lost, and its
 * process with it: nobody knows its registers any more, so that is told.
 *
 * Threads: an object belongs to one thread; survivors_mend() starts one, and ends it.
 */
#pragma once

#include "base/err.h"
#include "container/proc_tree.h"

#include <stddef.h>
#include <stdint.h>

struct survivors;

/* Before the dump: what the processes are like.
 * tree  root first, borrowed for the object's life
 * out   the caller's, survivors_freep(); what cannot be read is not known */
void survivors_note(const struct proc_facts *tree, size_t n, struct survivors **out);

/* After CRIU's end.
 * deadline  monotonic ns, for what CRIU runs in the processes to end
 * errors    RC_IO: which processes are lost, or what could not be mended in which: half a sentence,
 *           "process 4711 (node) did not survive it" */
enum rc survivors_mend(const struct survivors *s, uint64_t deadline, struct err *err);

/* NULL is fine. */
void survivors_freep(struct survivors **p);

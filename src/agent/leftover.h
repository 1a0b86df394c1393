/* What a worker that was killed has left in the container that it restored for.
 *
 * CRIU undoes what it has begun when its worker is gone, if it can; what it has restored does not
 * run (criu/gate.h).  All of it has to be gone before the container starts its command, with its
 * ports, locks and memory, and has rights that the container's first process may not end.
 * Threads: an object belongs to one thread.
 */
#pragma once

#include "base/err.h"
#include "engine/children.h"

#include <stdint.h>

struct leftover {
    int pidfd; /* borrowed */
    struct children before;
};

/* Note what there is before the restore.
 * pidfd   of the container's first process; borrowed for the object's life
 * out     the caller's, leftover_done()
 * errors  RC_NOT_FOUND (it has ended), RC_INVALID, RC_IO */
enum rc leftover_note(int pidfd, struct leftover *out, struct err *err);
void leftover_done(struct leftover *l); /* for CLEANUP() */

/* End what has come since: CRIU, and what it has made; and wait for it.
 * deadline  monotonic ns
 * errors    RC_TIMEOUT (one does not end), RC_IO */
enum rc leftover_end(const struct leftover *l, uint64_t deadline, struct err *err);

/* A process that keeps the memory of another, and never runs (criu/hidden.h):
 * taken over by us, it ends when we do, and whatever signal it gets.
 *
 * Threads: a keeper belongs to the thread that took it, and ends with that.
 */
#pragma once

#include "base/err.h"

#include <sys/types.h>

/* Take it over, stopped as it is.
 * errors  RC_NOT_FOUND (it is gone), RC_DENIED, RC_TIMEOUT, RC_IO */
enum rc keeper_take(pid_t pid, struct err *err);

/* End it; it must have been taken.  That takes its time, as it has much memory, and is not waited
 * for: it is gone at the latest when our thread is. */
void keeper_end(pid_t pid);

/* Ask the node's agent to restore us: it has the rights for that, we need none (assist/talk.h).
 *
 * What is to be changed in our own files is done here, with our own rights.  What fails leaves
 * nobody behind but us, so that the command can be started cold.
 * Threads: the program's main thread only.
 */
#pragma once

#include "base/err.h"
#include "entrypoint/settings.h"

#include <stdbool.h>
#include <sys/types.h>

/* Whether there is somebody to be asked: the socket is there, and a checkpoint is named. */
bool ask_possible(const struct settings *s);

/* Ask; returns with the tree running, its root our child.  After guard_begin().
 * out_master  of the terminal that it has had, the caller's; -1: none
 * errors      RC_NOT_FOUND (it has no such checkpoint, or is not there, and nothing was begun),
 *             RC_UNAVAILABLE (the agent says why not), RC_CANCELLED (it has ended), RC_TIMEOUT (it
 *             says nothing), RC_UNSUPPORTED (we are not PID 1), RC_INVALID (the name), RC_DENIED,
 *             RC_CORRUPT, RC_IO.  RC_CONFLICT: half-restored processes are left that are not ours
 *             to end; they end with us */
enum rc ask_agent(const struct settings *s, pid_t *out_pid, int *out_master, struct err *err);

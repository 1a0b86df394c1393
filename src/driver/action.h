/* The driver's operations on many processes at once, each in a thread of its own.
 *
 * A lock and a checkpoint are all or nothing: if one process fails, the others are brought back to
 * running.  A restore is not: what it could not restore cannot run, and the caller ends the tree.
 * Threads: one call at a time; a call starts threads and ends them.
 */
#pragma once

#include "driver/cuda.h"
#include "gpu/message.h"

/* Carry a request out; fills rc, why and the processes of the answer.
 * facts  of this machine, for explanations */
void action_run(const struct cuda *c, const struct gpu_facts *facts,
                const struct gpu_request *request, struct gpu_reply *out);

/* The driver's number of a state, as ours. */
enum gpu_state action_state_of(int state);

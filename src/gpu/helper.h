/* chrek-gpu, as its parent sees it: a process of its own, because the driver may hang or crash.
 *
 * It lives as long as it is needed, so that the driver is initialised once, and is started without
 * being waited for: that takes seconds, and there is other work meanwhile.  A call that takes
 * longer than its deadline ends with the helper killed; the next call starts another.  What the
 * driver has done to a process by then stays done: GPU_RELEASE takes it back.  It outlives a parent
 * that dies: it brings back to running whom that has left locked or checkpointed, then ends.
 *
 * Threads: a helper belongs to one thread.
 */
#pragma once

#include "base/err.h"
#include "gpu/message.h"

#include <stdint.h>

struct gpu_helper;

/* Find the program: $CHREK_GPU, then beside our own, then /usr/local/bin, /usr/bin.
 * out     the caller's (free)
 * errors  RC_NOT_FOUND, saying where it looked */
enum rc gpu_helper_find(char **out, struct err *err);

/* Start it.  out: the caller's, gpu_helper_freep().  errors  RC_NOT_FOUND, RC_IO */
enum rc gpu_helper_open(const char *program, struct gpu_helper **out, struct err *err);

/* Ask, and wait for the answer.
 * deadline  monotonic ns, 0 = none
 * out       also on failure of the request: what came of each process; emptied first
 * errors    the request's; RC_TIMEOUT (the driver hangs: killed), RC_IO (it has ended: how) */
enum rc gpu_helper_call(struct gpu_helper *h, const struct gpu_request *request, uint64_t deadline,
                        struct gpu_reply *out, struct err *err);

/* End it, by force if need be.  NULL is fine. */
void gpu_helper_freep(struct gpu_helper **p);

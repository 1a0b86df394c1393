/* A gate before a restored tree: it does not run until we have said so.
 *
 * CRIU lets a restored tree go whatever we answer to its last notification, and so does the kernel
 * when CRIU is killed.  The CRIU that tools/get-criu installs is told by a variable of its
 * environment to wait for one byte before (tools/criu/hold.c).  Until then all that it restores is
 * killed when CRIU ends, and CRIU ends when the gate does: by gate_shut(), or with our process.
 * Threads: an object belongs to one thread.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define CR_GATE_VARIABLE "CHREK_GATE_FD"

struct cr_gate {
    int from; /* for CRIU, cr_launch.pass_fds; -1: there is no gate */
    int to;
    char env[sizeof(CR_GATE_VARIABLE) + 12]; /* cr_launch.env */
};

#define CR_GATE_NOTHING                                                                            \
    {                                                                                              \
        .from = -1, .to = -1                                                                       \
    }

/* Whether the program at this path waits before a gate. */
bool cr_can_wait(const char *criu);

/* passed  its index in cr_launch.pass_fds
 * out     the caller's, cr_gate_shut()
 * errors  RC_IO */
enum rc cr_gate_make(size_t passed, struct cr_gate *out, struct err *err);
/* CRIU has `from` by now: with ours open it would not see the end of the gate. */
void cr_gate_handed(struct cr_gate *g);
/* From now on it may run.  Without a gate it may at any time.
 * errors  RC_IO (CRIU has ended) */
enum rc cr_gate_open(struct cr_gate *g, struct err *err);
/* What has not been let through is to be killed by CRIU's end, which comes with this.  For
 * CLEANUP(). */
void cr_gate_shut(struct cr_gate *g);

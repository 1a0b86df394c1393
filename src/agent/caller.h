/* Who is at the other end of the agent's socket: the first process of which container of which pod.
 *
 * What it says of itself counts for nothing.  Its PID is the kernel's word, but a number only; it
 * sends a descriptor of itself along, which holds on to it, and which it could not have of a
 * process of another pod.  Which container that is, and in which namespace, the container runtime
 * knows.
 * Threads: safe.
 */
#pragma once

#include "base/err.h"
#include "cri/cri.h"

#include <sys/types.h>

struct caller {
    pid_t pid;
    struct cri_container container; /* with pod_name, pod_namespace and pod_uid */
};

/* sk      its connection
 * pidfd   what it says is a descriptor of itself; borrowed
 * out     the caller's, caller_done()
 * errors  RC_DENIED (it is somebody else than it says, or no container's first process),
 *         RC_NOT_FOUND (it has ended), RC_UNAVAILABLE (the runtime does not answer), RC_CORRUPT */
enum rc caller_find(struct cri *cri, int sk, int pidfd, struct caller *out, struct err *err);
void caller_done(struct caller *c); /* for CLEANUP() */

/* The next word in the text of /proc/PID/cgroup that may be a container's id: 64 hexadecimal
 * digits. at    where to begin id    65 bytes Returns where to go on, NULL when there is none. */
const char *caller_next_id(const char *at, char *id);

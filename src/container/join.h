/* Step into the namespaces of a process that we did not start.
 *
 * Opened first, with every check and error; entered later, in a child that may do little more than
 * system calls.  The IPC, user and time namespaces are never joined: CRIU saves the first itself
 * and needs our rights from the second. Threads: an object belongs to one thread.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <sys/types.h>

enum join_kind { JOIN_NET, JOIN_UTS, JOIN_PID, JOIN_MNT, JOIN_COUNT_ };

struct join {
    int fd[JOIN_COUNT_]; /* -1: the same as ours, nothing to join */
    /* The process's root directory, -1 without a mount namespace to join: setns() leads to the root
     * of the namespace, which is not that of a process in a chroot. */
    int root;
};

#define JOIN_NOTHING                                                                               \
    {                                                                                              \
        .fd = {-1, -1, -1, -1}, .root = -1                                                         \
    }

/* Open the namespaces of `pid` that differ from ours.
 * out     the caller's, join_done()
 * errors  RC_NOT_FOUND (no such process), RC_DENIED, RC_IO */
enum rc join_open(pid_t pid, struct join *out, struct err *err);
void join_done(struct join *j);

/* For struct cr_launch: 0 or -errno; async-signal-safe.  arg: a struct join. */
int join_enter(void *arg);

/* Whether two processes share a namespace ("mnt", "ipc"); false if that cannot be told. */
bool join_same(pid_t a, pid_t b, const char *kind);

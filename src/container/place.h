/* The container of somebody else, as a place for CRIU to restore a tree in.
 *
 * CRIU works there with rights that the container does not have, so it must find nothing there that
 * the container has prepared for it: no library or configuration file that it would load, no
 * program that it would run.  It gets a root directory of its own, in a mount namespace of its own:
 * CRIU's files, read-only; the container's mounts; nothing of ours.  Network, UTS, IPC and cgroup
 * namespace and the control groups are the container's, and so is the PID namespace: what CRIU
 * leaves behind becomes a child of the container's first process.
 *
 * Everything is opened first, through a descriptor that holds on to that first process, so that no
 * other process can take its place; place_enter() then does system calls only.
 * Threads: an object belongs to one thread.
 */
#pragma once

#include "base/err.h"
#include "container/ns.h"

#include <stddef.h>
#include <sys/types.h>

#define PLACE_GROUPS_MAX 32

#define PLACE_ROOT "/root" /* in CRIU's root directory: the container's root file system alone */
#define PLACE_ALL "/all"   /* and with everything that is mounted in it */

struct place {
    pid_t pid; /* the container's first process, as we see it; bound to `task` */
    int pidfd;
    int task; /* its folder in /proc */
    int root; /* its root directory */
    int ns[NS_COUNT_];
    int groups[PLACE_GROUPS_MAX]; /* cgroup.procs of its control groups, where they are not ours */
    size_t n_groups;
    char *prefix;  /* the folder of CRIU's installation */
    char *program; /* CRIU's program in the root directory of its own */
};

/* pidfd   of the container's first process; kept on RC_OK
 * criu    path of CRIU's program, PREFIX/sbin/criu as tools/get-criu makes it
 * out     the caller's, place_done()
 * errors  RC_NOT_FOUND (the process has ended, or a CRIU that is not whole), RC_INVALID (not the
 *         first process of a container), RC_UNSUPPORTED (a user namespace of its own), RC_DENIED,
 *         RC_IO */
enum rc place_open(int pidfd, const char *criu, struct place *out, struct err *err);
void place_done(struct place *p); /* for CLEANUP() */
#define PLACE_NOTHING                                                                              \
    {                                                                                              \
        .pid = 0, .pidfd = -1, .task = -1, .root = -1                                              \
    }

/* The PID that a pidfd holds, as we see it.
 * errors  RC_NOT_FOUND (it has ended, or is not to be seen from here), RC_INVALID (no pidfd) */
enum rc place_pid_of(int pidfd, pid_t *out, struct err *err);

/* For struct cr_launch: 0 or -errno; async-signal-safe.  arg: a struct place. */
int place_enter(void *arg);

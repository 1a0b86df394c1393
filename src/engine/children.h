/* The children that a restore without a box gives us, or the first process of a container: CRIU
 * makes the tree's root our own child, or leaves it to that process when it ends, and whatever
 * loses its parent becomes one of PID 1.
 *
 * Those that were there before, such as what a script started and left to us by exec, are none of
 * ours to end.  Threads: a struct belongs to one thread.
 */
#pragma once

#include "base/err.h"
#include "container/proc_tree.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct children {
    pid_t parent;
    uint64_t parent_start; /* with its number this names it for ever */
    struct proc_facts *before;
    size_t n;
    uint64_t since; /* clock ticks: nothing that is older came after */
};

#define CHILDREN_INIT                                                                              \
    {                                                                                              \
        .before = NULL                                                                             \
    }

/* Note the children that `parent` has now; call before the restore makes a process.
 * errors  RC_IO */
enum rc children_note(struct children *c, pid_t parent, struct err *err);
void children_done(struct children *c); /* for CLEANUP() */

/* SIGKILL to every child that has come since, and to its descendants; not to the child `spared`
 * (0: to all), nor to the caller, who may be one of them, and its parent. */
void children_kill(const struct children *c, pid_t spared);

/* SIGKILL to every child of a process, and to its descendants. */
void children_kill_of(pid_t parent);

/* The same until there is none any more, each of them reaped, by us if they are ours: only then are
 * their ports, locks and memory free.  Of another one's children it is enough that they have ended.
 * Only for who has noted them.
 * deadline  monotonic ns
 * errors    RC_TIMEOUT (one does not end: its PID), RC_IO */
enum rc children_end(const struct children *c, uint64_t deadline, struct err *err);

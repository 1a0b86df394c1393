#include "agent/leftover.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/ns.h"
#include "container/place.h"
#include "container/proc_tree.h"
#include "container/task.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAUSE_NS 5000000

enum rc leftover_note(int pidfd, struct leftover *out, struct err *err)
{
    pid_t pid = 0;
    struct leftover l = {.pidfd = pidfd, .before = CHILDREN_INIT};
    enum rc rc = place_pid_of(pidfd, &pid, err);
    if (!rc)
        rc = children_note(&l.before, pid, err);
    if (rc)
        return rc;
    *out = l;
    return RC_OK;
}

void leftover_done(struct leftover *l)
{
    children_done(&l->before);
}

static bool is_there(int pidfd)
{
    return syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) == 0;
}

/* CRIU and what it restores are in mount namespaces of their own; who was let into the container
 * by its runtime is in the container's. */
static bool is_of_restore(const struct leftover *l, int proc, const struct ns_set *first,
                          const struct proc_facts *f)
{
    struct ns_set set;
    CLEANUP(fd_closep) int task = -1;
    if (f->pid == l->before.parent || f->start < l->before.since || f->state == 'Z' ||
        task_open(proc, f->pid, &task, NULL) != RC_OK || ns_read(task, &set, NULL) != RC_OK)
        return false;
    return ns_same(&set, first, NS_PID) && !ns_same(&set, first, NS_MNT);
}

static void kill_bound(const struct proc_facts *f)
{
    struct proc_facts now;
    CLEANUP(fd_closep) int fd = (int)syscall(SYS_pidfd_open, f->pid, 0);
    if (fd >= 0 && proc_facts_read(f->pid, &now, NULL) == RC_OK && now.start == f->start)
        (void)syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
}

/* *out_left: one that is still there, or 0 */
static enum rc kill_those(const struct leftover *l, pid_t *out_left, struct err *err)
{
    struct ns_set first;
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    CLEANUP(mem_freep) struct proc_facts *all = NULL;
    size_t n = 0;
    *out_left = 0;
    enum rc rc = task_open_proc("/proc", &proc, err);
    if (!rc)
        rc = task_open(proc, l->before.parent, &task, err);
    if (!rc)
        rc = ns_read(task, &first, err);
    if (!rc)
        rc = proc_in_namespace(l->before.parent, &all, &n, err);
    if (!is_there(l->pidfd)) /* the kernel ends all of its namespace; its number may be another's */
        return RC_OK;
    for (size_t i = 0; !rc && i < n; i++)
        if (is_of_restore(l, proc, &first, &all[i])) {
            *out_left = all[i].pid;
            kill_bound(&all[i]);
        }
    return rc;
}

enum rc leftover_end(const struct leftover *l, uint64_t deadline, struct err *err)
{
    struct timespec pause = {0, PAUSE_NS};
    for (pid_t left = 0;;) {
        enum rc rc = kill_those(l, &left, err);
        if (rc || !left)
            return rc ? rc : children_end(&l->before, deadline, err);
        if (clock_now() > deadline)
            return err_set(err, RC_TIMEOUT, "process %d of a broken-off restore does not end",
                           (int)left);
        (void)nanosleep(&pause, NULL);
    }
}

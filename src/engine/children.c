#include "engine/children.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAUSE_NS 2000000

static uint64_t ticks_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_BOOTTIME, &t);
    uint64_t per_second = (uint64_t)sysconf(_SC_CLK_TCK);
    return (uint64_t)t.tv_sec * per_second + (uint64_t)t.tv_nsec * per_second / CLOCK_S;
}

enum rc children_note(struct children *c, pid_t parent, struct err *err)
{
    uint64_t since = ticks_now();
    struct proc_facts self;
    struct children now = {.parent = parent, .since = since};
    enum rc rc = proc_facts_read(parent, &self, err);
    if (!rc)
        rc = proc_children(now.parent, &now.before, &now.n, err);
    if (rc)
        return rc;
    now.parent_start = self.start;
    children_done(c);
    *c = now;
    return RC_OK;
}

void children_done(struct children *c)
{
    free(c->before);
    *c = (struct children)CHILDREN_INIT;
}

static bool is_victim(const struct children *c, const struct proc_facts *f)
{
    if (f->pid == getpid() || f->pid == getppid())
        return false;
    for (size_t i = 0; i < c->n; i++)
        if (c->before[i].pid == f->pid && c->before[i].start == f->start)
            return false;
    return f->start >= c->since; /* an older one has only lost its parent */
}

/* Not somebody else who has its number by now. */
static void kill_one(const struct proc_facts *f)
{
    struct proc_facts now;
    CLEANUP(fd_closep) int fd = (int)syscall(SYS_pidfd_open, f->pid, 0);
    if (fd >= 0 && proc_facts_read(f->pid, &now, NULL) == RC_OK && now.start == f->start)
        (void)syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
}

static void kill_tree(pid_t root)
{
    CLEANUP(mem_freep) struct proc_facts *tree = NULL;
    size_t n = 0;
    if (proc_tree(root, &tree, &n, NULL) != RC_OK)
        return;
    for (size_t i = 0; i < n; i++)
        kill_one(&tree[i]);
}

/* Nothing is left of it but its number, until its parent takes note; that one may do so late. */
static bool has_ended(const struct proc_facts *f)
{
    char path[40];
    struct stat st;
    (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)f->pid);
    return f->state == 'Z' &&
           (stat(path, &st) < 0 || st.st_nlink <= 3); /* and no thread lives on */
}

/* Looked at after its children were listed: they were its own then. */
static bool is_same_parent(const struct children *c)
{
    struct proc_facts now;
    return !c->parent_start ||
           (proc_facts_read(c->parent, &now, NULL) == RC_OK && now.start == c->parent_start);
}

/* Kill them and reap who has ended; *out_left: one that is still there, or 0. */
static enum rc kill_new(const struct children *c, pid_t spared, bool reap, pid_t *out_left,
                        struct err *err)
{
    CLEANUP(mem_freep) struct proc_facts *list = NULL;
    size_t n = 0;
    enum rc rc = proc_children(c->parent, &list, &n, err);
    if (rc)
        return rc;
    *out_left = 0;
    if (!is_same_parent(c)) /* what it had has gone to another one, or has ended with it */
        return RC_OK;
    for (size_t i = 0; i < n; i++) {
        if (list[i].pid == spared || !is_victim(c, &list[i]))
            continue;
        kill_tree(list[i].pid);
        if (c->parent == getpid() || !has_ended(&list[i]))
            *out_left = list[i].pid;
        if (reap && c->parent == getpid())
            (void)waitpid(list[i].pid, NULL, WNOHANG | __WALL);
    }
    return RC_OK;
}

void children_kill(const struct children *c, pid_t spared)
{
    pid_t left = 0;
    (void)!kill_new(c, spared, false, &left, NULL);
}

void children_kill_of(pid_t parent)
{
    const struct children all = {.parent = parent};
    children_kill(&all, 0);
}

enum rc children_end(const struct children *c, uint64_t deadline, struct err *err)
{
    for (pid_t left = 0;;) {
        enum rc rc = kill_new(c, 0, true, &left, err);
        if (rc || !left)
            return rc;
        if (clock_now() > deadline)
            return err_set(err, RC_TIMEOUT, "process %d of a failed restore does not end",
                           (int)left);
        struct timespec pause = {0, PAUSE_NS};
        (void)nanosleep(&pause, NULL);
    }
}

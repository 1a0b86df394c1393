#include "container/halt.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/maps.h"
#include "container/proc_tree.h"
#include "container/task.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STOP_OF_CALL (SIGTRAP | 0x80)     /* PTRACE_O_TRACESYSGOOD */
#define SUSPEND_SECCOMP (1 << 21)         /* PTRACE_O_SUSPEND_SECCOMP */
#define GET_DISPATCH 0x4211               /* PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, Linux 6.4 */
#define KERNEL_SIGSET ((void *)(size_t)8) /* bytes of the kernel's signal set */

struct thread {
    pid_t tid, pid;
    bool stopped, gone;
};

struct halt {
    struct thread *threads;
    size_t n;
    pid_t *pids;
    size_t n_pids;
};

/* As the kernel has it (linux/ptrace.h). */
struct dispatch {
    uint64_t mode, selector, offset, len;
};

static void pause_briefly(void)
{
    struct timespec t = {0, 50000};
    (void)nanosleep(&t, NULL);
}

/* ---- stopping ---- */

static bool knows(const struct halt *h, pid_t tid)
{
    for (size_t i = 0; i < h->n; i++)
        if (h->threads[i].tid == tid)
            return true;
    return false;
}

/* Errors RC_NOT_FOUND: it has ended. */
static enum rc seize(struct halt *h, pid_t tid, pid_t pid, struct err *err)
{
    uintptr_t options = PTRACE_O_TRACESYSGOOD;
    if (ptrace(PTRACE_SEIZE, tid, NULL, options) < 0) { // NOLINT(performance-no-int-to-ptr)
        struct proc_facts f;
        int why = errno;
        if (why == ESRCH || proc_facts_read(tid, &f, NULL) != RC_OK || f.state == 'Z' ||
            f.state == 'X')
            return err_set(err, RC_NOT_FOUND, "thread %d has ended", (int)tid);
        errno = why;
        return f.tracer ? err_set(err, RC_CONFLICT, "process %d is being traced by process %d",
                                  (int)pid, (int)f.tracer)
                        : err_sys(err, "stop thread %d", (int)tid);
    }
    (void)ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
    if ((h->n & (h->n - 1)) == 0)
        h->threads = mem_realloc(h->threads, (h->n ? h->n * 2 : 1) * sizeof(*h->threads));
    h->threads[h->n++] = (struct thread){.tid = tid, .pid = pid};
    return RC_OK;
}

/* One look at what a thread has come to.  A signal that arrived first is delivered: the stop that
 * was asked for follows it. */
static void look(struct thread *t)
{
    int status = 0;
    pid_t got = waitpid(t->tid, &status, __WALL | WNOHANG);
    if (got == 0 || (got < 0 && errno == EINTR))
        return;
    if (got < 0 || WIFEXITED(status) || WIFSIGNALED(status)) {
        t->gone = true;
        return;
    }
    if (status >> 16 == PTRACE_EVENT_STOP)
        t->stopped = true;
    else if (WIFSTOPPED(status)) // NOLINTNEXTLINE(performance-no-int-to-ptr)
        (void)ptrace(PTRACE_CONT, t->tid, NULL, (void *)(uintptr_t)WSTOPSIG(status));
}

static enum rc wait_for_all(struct halt *h, uint64_t deadline, struct err *err)
{
    for (size_t i = 0; i < h->n; i++) {
        struct thread *t = &h->threads[i];
        for (look(t); !t->stopped && !t->gone; look(t)) {
            if (clock_now() > deadline)
                return err_set(err, RC_TIMEOUT,
                               "thread %d of process %d waits in the kernel and does not stop",
                               (int)t->tid, (int)t->pid);
            pause_briefly();
        }
    }
    return RC_OK;
}

/* Threads of one process that are not known yet. */
static enum rc seize_threads(struct halt *h, pid_t pid, struct err *err)
{
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    CLEANUP(mem_freep) pid_t *tids = NULL;
    size_t n = 0;
    enum rc rc = task_open_proc("/proc", &proc, err);
    if (rc)
        return rc;
    if (task_open(proc, pid, &task, NULL) != RC_OK || task_threads(task, &tids, &n, NULL) != RC_OK)
        return RC_OK; /* it has ended */
    for (size_t i = 0; i < n; i++) {
        rc = knows(h, tids[i]) ? RC_OK : seize(h, tids[i], pid, err);
        if (rc && rc != RC_NOT_FOUND)
            return rc;
    }
    return RC_OK;
}

/* Stop whoever is not stopped yet.  What runs may make new threads and processes, so this is done
 * until there are none; *out_new tells. */
static enum rc stop_others(struct halt *h, pid_t root, uint64_t deadline, bool *out_new,
                           struct err *err)
{
    CLEANUP(mem_freep) struct proc_facts *tree = NULL;
    size_t n = 0, before = h->n;
    enum rc rc = proc_tree(root, &tree, &n, err);
    for (size_t i = 0; !rc && i < n; i++)
        if (tree[i].state != 'Z')
            rc = seize_threads(h, tree[i].pid, err);
    if (!rc)
        rc = wait_for_all(h, deadline, err);
    *out_new = h->n > before;
    return rc;
}

static void list_processes(struct halt *h)
{
    h->pids = mem_alloc((h->n + 1) * sizeof(*h->pids));
    for (size_t i = 0; i < h->n; i++) {
        bool there = h->threads[i].gone;
        for (size_t k = 0; k < h->n_pids && !there; k++)
            there = h->pids[k] == h->threads[i].pid;
        if (!there)
            h->pids[h->n_pids++] = h->threads[i].pid;
    }
}

enum rc halt_tree(pid_t root, uint64_t deadline, struct halt **out, struct err *err)
{
    CLEANUP(halt_endp) struct halt *h = mem_zalloc(sizeof(*h));
    enum rc rc = RC_OK;
    for (bool more = true; !rc && more;)
        rc = stop_others(h, root, deadline, &more, err);
    if (rc)
        return rc;
    list_processes(h);
    if (h->n_pids == 0)
        return err_set(err, RC_NOT_FOUND, "process %d has ended", (int)root);
    *out = STEAL(h);
    return RC_OK;
}

size_t halt_processes(const struct halt *h, const pid_t **out)
{
    *out = h->pids;
    return h->n_pids;
}

enum rc halt_block(const struct halt *h, pid_t tid, uint64_t mask, struct err *err)
{
    for (size_t i = 0; i < h->n; i++) {
        if (h->threads[i].tid != tid || h->threads[i].gone)
            continue;
        if (ptrace(PTRACE_SETSIGMASK, tid, KERNEL_SIGSET, &mask) < 0)
            return err_sys(err, "set what thread %d blocks", (int)tid);
        return RC_OK;
    }
    return err_set(err, RC_NOT_FOUND, "thread %d has ended", (int)tid);
}

void halt_endp(struct halt **p)
{
    struct halt *h = STEAL(*p);
    if (!h)
        return;
    for (size_t i = 0; i < h->n; i++)
        if (h->threads[i].stopped) /* of one that runs nothing can be asked */
            (void)ptrace(PTRACE_DETACH, h->threads[i].tid, NULL, NULL);
    free(h->threads);
    free(h->pids);
    free(h);
}

/* ---- system calls ---- */

#ifdef __x86_64__

#define CODE_64 0x33U /* the code segment of 64-bit programs */

/* Where in its vDSO a process has the instruction `syscall`. */
static enum rc find_instruction(pid_t pid, uint64_t *out, struct err *err)
{
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    CLEANUP(maps_done) struct maps maps = {0};
    uint8_t code[16384];
    enum rc rc = task_open_proc("/proc", &proc, err);
    if (!rc)
        rc = task_open(proc, pid, &task, err);
    if (!rc)
        rc = maps_read(task, false, &maps, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < maps.n; i++) {
        const struct map *m = &maps.list[i];
        size_t len = m->end - m->start < sizeof(code) ? m->end - m->start : sizeof(code);
        struct iovec to = {code, len};
        // NOLINTNEXTLINE(performance-no-int-to-ptr): an address of another process
        struct iovec from = {(void *)(uintptr_t)m->start, len};
        if (strcmp(m->name, "[vdso]") != 0 ||
            process_vm_readv(pid, &to, 1, &from, 1, 0) != (ssize_t)len)
            continue;
        const uint8_t *at = memmem(code, len, "\x0f\x05", 2);
        if (at) {
            *out = m->start + (uint64_t)(at - code);
            return RC_OK;
        }
    }
    return err_set(err, RC_UNSUPPORTED, "process %d has no vDSO to call the kernel from", (int)pid);
}

static bool redirects_calls(pid_t tid)
{
    struct dispatch d = {0};
    return ptrace((enum __ptrace_request)GET_DISPATCH, tid, (void *)sizeof(d), &d) == 0 && d.mode;
}

/* Run until the next stop of that kind: at the begin or the end of a system call, or the one that
 * was asked for by PTRACE_INTERRUPT. */
static enum rc run_to(pid_t tid, int how, bool call, struct err *err)
{
    uintptr_t sig = 0;
    for (;;) {
        int status = 0;
        // NOLINTNEXTLINE(performance-no-int-to-ptr)
        if (ptrace((enum __ptrace_request)how, tid, NULL, (void *)sig) < 0)
            return err_sys(err, "go on with thread %d", (int)tid);
        pid_t got = waitpid(tid, &status, __WALL);
        while (got < 0 && errno == EINTR)
            got = waitpid(tid, &status, __WALL);
        if (got < 0 || !WIFSTOPPED(status))
            return err_set(err, RC_NOT_FOUND, "thread %d has ended", (int)tid);
        bool event = status >> 16 == PTRACE_EVENT_STOP;
        if (call ? WSTOPSIG(status) == STOP_OF_CALL : event)
            return RC_OK;
        int other = event || WSTOPSIG(status) == STOP_OF_CALL ? 0 : WSTOPSIG(status);
        if (other == SIGSEGV || other == SIGBUS || other == SIGILL || other == SIGSYS)
            return err_set(err, RC_IO, "thread %d could not do a system call: signal %d", (int)tid,
                           other);
        sig = (uintptr_t)other; /* SIGSTOP cannot be held back: it is delivered */
    }
}

static enum rc do_call(pid_t tid, const struct user_regs_struct *regs, long *out, struct err *err)
{
    struct user_regs_struct after;
    if (ptrace(PTRACE_SETREGS, tid, NULL, regs) < 0)
        return err_sys(err, "set registers of thread %d", (int)tid);
    enum rc rc = run_to(tid, PTRACE_SYSCALL, true, err);
    if (!rc)
        rc = run_to(tid, PTRACE_SYSCALL, true, err);
    if (!rc && ptrace(PTRACE_GETREGS, tid, NULL, &after) < 0)
        rc = err_sys(err, "read registers of thread %d", (int)tid);
    if (!rc)
        *out = (long)after.rax;
    return rc;
}

static enum rc set_filters_aside(pid_t tid, bool aside, struct err *err)
{
    uintptr_t options = PTRACE_O_TRACESYSGOOD | (aside ? SUSPEND_SECCOMP : 0);
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    if (ptrace(PTRACE_SETOPTIONS, tid, NULL, (void *)options) < 0)
        return err_set(err, RC_UNSUPPORTED, "not allowed to put the seccomp filters of %d aside",
                       (int)tid);
    return RC_OK;
}

/* With every signal held back, so that none is taken in the middle; then all as it was.  The last
 * stop is again one in which the kernel restarts a call that we have interrupted. */
static enum rc call_in(pid_t tid, uint64_t instruction, long number, const uint64_t args[6],
                       long *out, struct err *err)
{
    struct user_regs_struct before, regs;
    uint64_t mask = 0, all = UINT64_MAX;
    long result = 0;
    if (ptrace(PTRACE_GETREGS, tid, NULL, &before) < 0 ||
        ptrace(PTRACE_GETSIGMASK, tid, KERNEL_SIGSET, &mask) < 0)
        return err_sys(err, "read registers of thread %d", (int)tid);
    if (before.cs != CODE_64 || redirects_calls(tid))
        return err_set(err, RC_UNSUPPORTED, "thread %d runs no 64-bit Linux program", (int)tid);
    enum rc rc = set_filters_aside(tid, true, err);
    if (rc)
        return rc;
    regs = before;
    regs.rip = instruction;
    regs.rax = (unsigned long long)number;
    regs.orig_rax = UINT64_MAX; /* no call is to be restarted now */
    regs.rdi = args[0];
    regs.rsi = args[1];
    regs.rdx = args[2];
    regs.r10 = args[3];
    regs.r8 = args[4];
    regs.r9 = args[5];
    if (ptrace(PTRACE_SETSIGMASK, tid, KERNEL_SIGSET, &all) < 0)
        return err_sys(err, "hold signals of thread %d back", (int)tid);
    rc = do_call(tid, &regs, &result, err);
    bool back = ptrace(PTRACE_SETREGS, tid, NULL, &before) == 0 &&
                ptrace(PTRACE_SETSIGMASK, tid, KERNEL_SIGSET, &mask) == 0 &&
                set_filters_aside(tid, false, NULL) == RC_OK &&
                ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) == 0 &&
                run_to(tid, PTRACE_CONT, false, NULL) == RC_OK;
    if (!rc && !back)
        rc = err_set(err, RC_NOT_FOUND, "thread %d has ended", (int)tid);
    if (!rc)
        *out = result;
    return rc;
}

bool halt_runs_in(const struct halt *h, pid_t pid, uint64_t start, uint64_t end)
{
    for (size_t i = 0; i < h->n; i++) {
        const struct thread *t = &h->threads[i];
        struct user_regs_struct regs;
        if (t->pid == pid && !t->gone && ptrace(PTRACE_GETREGS, t->tid, NULL, &regs) == 0 &&
            regs.rip >= start && regs.rip < end)
            return true;
    }
    return false;
}

enum rc halt_call(struct halt *h, pid_t pid, long number, const uint64_t args[6], long *out_result,
                  struct err *err)
{
    uint64_t instruction = 0;
    enum rc rc = find_instruction(pid, &instruction, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < h->n; i++) {
        struct thread *t = &h->threads[i];
        if (t->pid != pid || t->gone)
            continue;
        rc = call_in(t->tid, instruction, number, args, out_result, err);
        if (rc == RC_NOT_FOUND)
            t->gone = true;
        return rc;
    }
    return err_set(err, RC_NOT_FOUND, "process %d has ended", (int)pid);
}

#else

bool halt_runs_in(const struct halt *h, pid_t pid, uint64_t start, uint64_t end)
{
    (void)h;
    (void)pid;
    (void)start;
    (void)end;
    return true; /* nobody can tell */
}

enum rc halt_call(struct halt *h, pid_t pid, long number, const uint64_t args[6], long *out_result,
                  struct err *err)
{
    (void)h;
    (void)pid;
    (void)number;
    (void)args;
    (void)out_result;
    return err_set(err, RC_UNSUPPORTED, "system calls of other processes: only on x86-64");
}

#endif

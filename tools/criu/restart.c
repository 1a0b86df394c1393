/* Preloaded into CRIU by launch.c: a signal that comes while a process stands still for its dump
 * interrupts what it would have interrupted.
 *
 * CRIU lets a process go with its registers set back to before the system call that it was in, so
 * that this begins anew.  A signal that has come meanwhile is then handled first, and the call, a
 * pause() or a read(), goes on as if nothing had happened: it does not return EINTR, whoever waits
 * for that waits for ever, and a Ctrl-C is lost.  Whether a call is interrupted or restarted is for
 * the kernel to decide, when it knows of a signal; so give it back the registers with which it had
 * stopped the process, which say that a call is to be restarted, and have it leave by a stop after
 * which it looks at them.  A process that has been changed meanwhile in another way is left alone.
 * Of a process with several threads the kernel may give a signal to any that does not block it,
 * also to one that waits for nothing: that is so without a dump, too. x86-64 only; elsewhere
 * nothing is changed.
 */
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>

#ifdef __x86_64__

typedef long ptrace_fn(int, pid_t, void *, void *);

struct task {
    pid_t pid;
    int known;                    /* whether regs are */
    struct user_regs_struct regs; /* as the kernel stopped it */
};

static struct task *tasks;
static size_t n_tasks, room;

static long real_ptrace(int request, pid_t pid, void *addr, void *data)
{
    static ptrace_fn *libc_ptrace;
    if (!libc_ptrace)
        *(void **)&libc_ptrace = dlsym(RTLD_NEXT, "ptrace");
    return libc_ptrace(request, pid, addr, data);
}

static struct task *find(pid_t pid)
{
    for (size_t i = n_tasks; i-- > 0;)
        if (tasks[i].pid == pid)
            return &tasks[i];
    return NULL;
}

static void add(pid_t pid)
{
    struct task *t = find(pid);
    if (!t && n_tasks == room) {
        size_t more = room ? 2 * room : 64;
        struct task *grown = realloc(tasks, more * sizeof(*grown));
        if (!grown)
            return; /* it is let go of as CRIU does */
        tasks = grown;
        room = more;
    }
    if (!t)
        t = &tasks[n_tasks++];
    *t = (struct task){.pid = pid};
}

/* The first registers that are read of a process are those with which it was stopped. */
static void note(pid_t pid, const struct iovec *v)
{
    struct task *t = find(pid);
    if (!t || t->known || v->iov_len != sizeof(t->regs))
        return;
    memcpy(&t->regs, v->iov_base, sizeof(t->regs));
    t->known = 1;
}

/* -ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND, which programs never see.  What was begun with a
 * timeout that counts (-ERESTART_RESTARTBLOCK) has ended with EINTR, as CRIU does it. */
static int is_to_be_restarted(const struct user_regs_struct *r)
{
    long result = (long)r->rax;
    return (long)r->orig_rax >= 0 && (result == -512 || result == -513 || result == -514);
}

/* Whether CRIU has set it back, and done nothing else. */
static int is_set_back(const struct user_regs_struct *was, const struct user_regs_struct *is)
{
    struct user_regs_struct back = *was;
    back.rax = was->orig_rax;
    back.rip -= 2; /* the length of `syscall` */
    back.orig_rax = is->orig_rax;
    back.eflags = is->eflags;
    return memcmp(&back, is, sizeof(back)) == 0;
}

static int wait_for(pid_t pid, int *status)
{
    pid_t got;
    do
        got = waitpid(pid, status, __WALL);
    while (got < 0 && errno == EINTR);
    return got == pid ? 0 : -1;
}

/* It comes to the stop before it takes a signal or another step. */
static void stop_again(pid_t pid)
{
    int status = 0;
    if (real_ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) < 0)
        return;
    do
        if (real_ptrace(PTRACE_CONT, pid, NULL, NULL) < 0 || wait_for(pid, &status) < 0)
            return;
    while (WIFSTOPPED(status) && status >> 16 != PTRACE_EVENT_STOP);
}

static void let_kernel_decide(pid_t pid)
{
    struct task *t = find(pid);
    struct user_regs_struct now;
    int saved = errno;
    if (!t)
        return;
    if (t->known && is_to_be_restarted(&t->regs) &&
        real_ptrace(PTRACE_GETREGS, pid, NULL, &now) == 0 && is_set_back(&t->regs, &now) &&
        real_ptrace(PTRACE_SETREGS, pid, NULL, &t->regs) == 0)
        stop_again(pid);
    *t = tasks[--n_tasks];
    errno = saved;
}

__attribute__((visibility("default"))) long ptrace(enum __ptrace_request request, ...)
{
    va_list args;
    va_start(args, request);
    pid_t pid = va_arg(args, pid_t);
    void *addr = va_arg(args, void *), *data = va_arg(args, void *);
    va_end(args);
    if (request == PTRACE_DETACH)
        let_kernel_decide(pid);
    long done = real_ptrace((int)request, pid, addr, data);
    if (done == 0 && request == PTRACE_SEIZE)
        add(pid);
    if (done == 0 && request == PTRACE_GETREGSET && addr == (void *)NT_PRSTATUS)
        note(pid, data);
    return done;
}

#endif

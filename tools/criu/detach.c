/* Preloaded into CRIU by launch.c: who ends while CRIU lets go of it has ended.
 *
 * CRIU lets go of a restored tree one thread after another, and who it has let go runs: the program
 * may end, or end a child, before CRIU comes to the next thread of it.  CRIU takes the kernel's
 * "No such process" for a failure, and kills the whole tree.  So for a thread that is on its way
 * out letting go succeeds; a thread that lives and is not held is an error as ever.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>

#define EXITING 0x404U  /* PF_EXITING, PF_SIGNALED */
#define KILLED 0x100ULL /* SIGKILL, as /proc has pending signals */

typedef long ptrace_fn(enum __ptrace_request, ...);

static int is_exiting(pid_t tid)
{
    char path[40], text[512];
    unsigned flags = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)tid);
    FILE *f = fopen(path, "re");
    if (!f)
        return errno == ENOENT || errno == ESRCH;
    size_t n = fread(text, 1, sizeof(text) - 1, f);
    (void)fclose(f);
    text[n] = '\0';
    const char *after = strrchr(text, ')'); /* the name before it may hold anything */
    if (!n)                                 /* reaped meanwhile */
        return 1;
    return after && sscanf(after, ") %*c %*d %*d %*d %*d %*d %u", &flags) == 1 && flags & EXITING;
}

static int is_killed(pid_t tid)
{
    char path[40], line[128];
    unsigned long long pending = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "SigPnd: %llx", &pending) == 1)
            break;
    if (f)
        (void)fclose(f);
    return (pending & KILLED) != 0;
}

__attribute__((visibility("default"))) long ptrace(enum __ptrace_request request, ...)
{
    static ptrace_fn *libc_ptrace;
    va_list list;
    va_start(list, request);
    pid_t tid = va_arg(list, pid_t);
    void *address = va_arg(list, void *), *data = va_arg(list, void *);
    va_end(list);
    if (!libc_ptrace)
        *(void **)&libc_ptrace = dlsym(RTLD_NEXT, "ptrace");
    long result = libc_ptrace(request, tid, address, data);
    if (result != -1 || errno != ESRCH || request != PTRACE_DETACH)
        return result;
    /* Killed first, then exiting: it passes from one to the other meanwhile. */
    if (is_killed(tid) || is_exiting(tid))
        return 0;
    errno = ESRCH;
    return -1;
}

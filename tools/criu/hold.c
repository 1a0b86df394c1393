/* Preloaded into CRIU by launch.c: a restored tree does not run before it may.
 *
 * At the end of a restore CRIU traces every thread of the tree and lets them go
 * whatever was answered to its last question ("pre-resume"); so does the kernel
 * when CRIU is killed.  So where CHREK_GATE_FD names a descriptor, all that CRIU
 * traces is killed when CRIU ends (PTRACE_O_EXITKILL), and before CRIU lets go of
 * the first one it must read one byte, GO, from there.  Whoever holds the other
 * end has died when there is none: then CRIU ends, and the tree with it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <unistd.h>

#define GO 'g' /* src/criu/gate.c */
#define KEPT_SHUT 126

typedef long ptrace_fn(enum __ptrace_request, ...);

/* -1: there is none.  By anything else than a number the gate is shut. */
static int gate(void)
{
    static int fd = -2;
    if (fd == -2) {
        const char *text = getenv("CHREK_GATE_FD");
        fd = text ? atoi(text) : -1;
    }
    return fd;
}

static bool is_open(int fd)
{
    static bool open;
    char byte = 0;
    ssize_t n = open ? 1 : 0;
    while (!open && (n = read(fd, &byte, 1)) < 0 && errno == EINTR)
        continue;
    open = open || (n == 1 && byte == GO);
    return open;
}

__attribute__((visibility("default"))) long ptrace(enum __ptrace_request request, ...)
{
    static ptrace_fn *libc_ptrace;
    va_list ap;

    va_start(ap, request);
    pid_t pid = va_arg(ap, pid_t);
    void *address = va_arg(ap, void *), *data = va_arg(ap, void *);
    va_end(ap);

    if (!libc_ptrace)
        *(void **)&libc_ptrace = dlsym(RTLD_NEXT, "ptrace");
    if (gate() >= 0 && (request == PTRACE_SEIZE || request == PTRACE_SETOPTIONS))
        data = (void *)((uintptr_t)data | PTRACE_O_EXITKILL);
    if (gate() >= 0 && request == PTRACE_DETACH && !is_open(gate()))
        _exit(KEPT_SHUT);
    return libc_ptrace(request, pid, address, data);
}

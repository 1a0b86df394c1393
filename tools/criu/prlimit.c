/* Preloaded into CRIU by launch.c: read another process's limits without CAP_SYS_RESOURCE.
 *
 * To dump a process CRIU reads its limits by syscall(__NR_prlimit64, pid, ...).  Where the process
 * has another uid the kernel wants CAP_SYS_RESOURCE for that, which root in a container often
 * lacks, and the dump fails, although /proc/PID/limits shows the same numbers to the same caller.
 * So: a refused prlimit64() that only reads is answered from there.  Nothing else is changed.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

typedef long syscall_fn(long, ...);

enum { TITLE_WIDTH = 26 }; /* of the first column of /proc/PID/limits */

/* What the kernel calls them there: fs/proc/base.c, lnames[]. */
static const char *const titles[RLIM_NLIMITS] = {
    [RLIMIT_CPU] = "Max cpu time",
    [RLIMIT_FSIZE] = "Max file size",
    [RLIMIT_DATA] = "Max data size",
    [RLIMIT_STACK] = "Max stack size",
    [RLIMIT_CORE] = "Max core file size",
    [RLIMIT_RSS] = "Max resident set",
    [RLIMIT_NPROC] = "Max processes",
    [RLIMIT_NOFILE] = "Max open files",
    [RLIMIT_MEMLOCK] = "Max locked memory",
    [RLIMIT_AS] = "Max address space",
    [RLIMIT_LOCKS] = "Max file locks",
    [RLIMIT_SIGPENDING] = "Max pending signals",
    [RLIMIT_MSGQUEUE] = "Max msgqueue size",
    [RLIMIT_NICE] = "Max nice priority",
    [RLIMIT_RTPRIO] = "Max realtime priority",
    [RLIMIT_RTTIME] = "Max realtime timeout",
};

static rlim64_t limit_value(const char *text)
{
    return strcmp(text, "unlimited") == 0 ? RLIM64_INFINITY : strtoull(text, NULL, 10);
}

static int read_limit(long pid, long resource, struct rlimit64 *out)
{
    char path[64], line[256], soft[32], hard[32];
    int found = 0;

    (void)snprintf(path, sizeof(path), "/proc/%ld/limits", pid);
    FILE *f = fopen(path, "re");
    while (f && !found && fgets(line, sizeof(line), f)) {
        if (strlen(line) <= TITLE_WIDTH ||
            strncmp(line, titles[resource], strlen(titles[resource])) != 0 ||
            sscanf(line + TITLE_WIDTH, "%31s %31s", soft, hard) != 2)
            continue;
        *out = (struct rlimit64){.rlim_cur = limit_value(soft), .rlim_max = limit_value(hard)};
        found = 1;
    }
    if (f)
        (void)fclose(f);
    return found;
}

/* The C library's syscall() also takes six arguments whatever the caller gave. */
__attribute__((visibility("default"))) long syscall(long number, ...)
{
    static syscall_fn *libc_syscall;
    long a[6];
    va_list ap;

    va_start(ap, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);

    if (!libc_syscall)
        *(void **)&libc_syscall = dlsym(RTLD_NEXT, "syscall");
    long ret = libc_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);

    /* a: pid, resource, new limit, old limit */
    if (ret != -1 || errno != EPERM || number != SYS_prlimit64 || a[2] || !a[3] || a[1] < 0 ||
        a[1] >= RLIM_NLIMITS)
        return ret;
    if (read_limit(a[0], a[1], (struct rlimit64 *)a[3]))
        return 0;
    errno = EPERM;
    return -1;
}

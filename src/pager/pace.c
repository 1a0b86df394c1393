#include "pager/pace.h"

#include "base/sys.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define NICE_BEHIND 10
#define SLICE_NS 2000000 /* of work, after which is looked again */
#define CROWDED 4        /* waited for more than one of so many parts of it: others want it, too */

void pace_init(struct pace *p, uint64_t most_ns)
{
    struct sched_param param = {0};
    *p = (struct pace){
        .most_ns = most_ns, .policy = sched_getscheduler(0), .nice = getpriority(PRIO_PROCESS, 0)};
    if (sched_getparam(0, &param) == 0)
        p->priority = param.sched_priority;
    p->file = sys_openat(AT_FDCWD, "/proc/thread-self/schedstat", O_RDONLY, 0);
}

static bool is_real_time(const struct pace *p)
{
    return p->policy == SCHED_FIFO || p->policy == SCHED_RR;
}

static void set(struct pace *p, bool behind)
{
    struct sched_param param = {.sched_priority = behind ? 0 : p->priority};
    if (p->behind == behind)
        return;
    p->behind = behind;
    if (is_real_time(p))
        (void)sched_setscheduler(0, behind ? SCHED_OTHER : p->policy, &param);
    (void)setpriority(PRIO_PROCESS, 0, behind && p->nice < NICE_BEHIND ? NICE_BEHIND : p->nice);
}

void pace_before(struct pace *p)
{
    set(p, false);
}

void pace_behind(struct pace *p)
{
    set(p, true);
}

uint64_t pace_judge(struct pace *p, uint64_t ran_ns, uint64_t waited_ns)
{
    uint64_t ran = ran_ns - p->ran_ns, waited = waited_ns - p->waited_ns;
    if (ran < SLICE_NS)
        return 0;
    p->ran_ns = ran_ns;
    p->waited_ns = waited_ns;
    if (waited <= ran / CROWDED)
        return p->pause_ns = 0;
    p->pause_ns = p->pause_ns ? 2 * p->pause_ns : PACE_LEAST_NS;
    p->pause_ns = p->pause_ns < p->most_ns ? p->pause_ns : p->most_ns;
    return p->pause_ns;
}

uint64_t pace_pause(struct pace *p)
{
    char text[96];
    uint64_t ran, waited;
    ssize_t n = p->file < 0 ? -1 : pread(p->file, text, sizeof(text) - 1, 0);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    return sscanf(text, "%" SCNu64 " %" SCNu64, &ran, &waited) == 2 ? pace_judge(p, ran, waited)
                                                                    : 0;
}

void pace_done(struct pace *p)
{
    fd_closep(&p->file);
}

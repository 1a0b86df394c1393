#include "base/compiler.h"
#include "engine/bounds.h"
#include "harness/test.h"

#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static int open_self(void)
{
    int proc = -1, task = -1;
    struct err err = ERR_INIT;
    CHECK_OK(task_open_proc("/proc", &proc, &err));
    CHECK_OK(task_open(proc, getpid(), &task, &err));
    (void)close(proc);
    return task;
}

static struct bounds ours(int task)
{
    struct err err = ERR_INIT;
    struct task_status status;
    struct bounds b = {.caps = 0};
    CHECK_OK(task_status_read(task, &status, &err));
    CHECK_OK(bounds_read(task, &status, &b, &err));
    b.caps = 0;
    return b;
}

TEST(what_the_kernel_says_is_read)
{
    struct rlimit files;
    int task = open_self();
    const struct bounds b = ours(task);
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &files), 0);
    CHECK(b.limits.hard[RLIMIT_NOFILE] ==
          (files.rlim_max == RLIM_INFINITY ? BOUNDS_UNLIMITED : files.rlim_max));
    CHECK_INT(b.schedule.nice, getpriority(PRIO_PROCESS, 0));
    CHECK_INT(b.schedule.policy, (unsigned)sched_getscheduler(0));
    (void)close(task);
}

TEST(a_process_is_within_its_own_bounds)
{
    struct err err = ERR_INIT;
    int task = open_self();
    const struct bounds b = ours(task);
    CHECK_OK(bounds_check(&b, task, &err));
    (void)close(task);
}

TEST(every_limit_that_is_higher_is_refused)
{
    struct err err = ERR_INIT;
    for (int i = 0; i < RLIM_NLIMITS; i++) {
        struct bounds limit = {.caps = 0};
        struct bounds_limits has = {{0}};
        has.hard[i] = 1;
        CHECK_RC(bounds_check_limits(&limit, &has, &err), RC_DENIED);
        limit.limits.hard[i] = BOUNDS_UNLIMITED;
        CHECK_OK(bounds_check_limits(&limit, &has, &err));
        limit = (struct bounds){.caps = 1 << 24}; /* SYS_RESOURCE */
        CHECK_OK(bounds_check_limits(&limit, &has, &err));
    }
}

TEST(a_schedule_that_is_better_is_refused)
{
    struct err err = ERR_INIT;
    struct bounds limit = {.schedule = {.nice = 5}};
    struct bounds_schedule has = {.nice = 5, .policy = SCHED_BATCH};
    CHECK_OK(bounds_check_schedule(&limit, &has, &err));
    has.nice = 4;
    CHECK_RC(bounds_check_schedule(&limit, &has, &err), RC_DENIED);
    limit.limits.hard[RLIMIT_NICE] = 16; /* it may be 4 */
    CHECK_OK(bounds_check_schedule(&limit, &has, &err));
    has = (struct bounds_schedule){.nice = 5, .policy = SCHED_FIFO, .real_time_priority = 1};
    CHECK_RC(bounds_check_schedule(&limit, &has, &err), RC_DENIED);
    has.policy = 77;
    CHECK_RC(bounds_check_schedule(&limit, &has, &err), RC_DENIED);
    limit.caps = 1 << 23; /* SYS_NICE */
    CHECK_OK(bounds_check_schedule(&limit, &has, &err));
}

TEST(text_that_makes_no_sense_is_an_error)
{
    struct err err = ERR_INIT;
    struct bounds_limits l;
    struct bounds_schedule s;
    CHECK_RC(bounds_parse_limits("", 0, &l, &err), RC_CORRUPT);
    CHECK_RC(bounds_parse_schedule("1 (x) S 1", 9, &s, &err), RC_CORRUPT);
    CHECK_RC(bounds_parse_schedule("", 0, &s, &err), RC_CORRUPT);
}

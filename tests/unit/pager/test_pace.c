/* Who stays away, and for how long; what the machine is like then is given. */
#include "base/clock.h"
#include "harness/test.h"
#include "pager/pace.h"

#include <sched.h>
#include <sys/resource.h>

#define MOST (64 * CLOCK_MS)

TEST(alone_it_never_pauses)
{
    struct pace p = {.file = -1, .most_ns = MOST};
    for (uint64_t ms = 1; ms < 1000; ms++)
        CHECK_INT(pace_judge(&p, ms * CLOCK_MS, ms * CLOCK_MS / 10), 0);
}

TEST(where_others_wait_it_pauses_longer_and_longer)
{
    struct pace p = {.file = -1, .most_ns = MOST};
    uint64_t last = 0;
    for (uint64_t i = 1; i < 20; i++) {
        uint64_t pause = pace_judge(&p, i * 5 * CLOCK_MS, i * 5 * CLOCK_MS);
        CHECK(pause >= PACE_LEAST_NS && pause >= last && pause <= MOST);
        last = pause;
    }
    CHECK(last == MOST);
    /* ... and no more once it is alone again */
    CHECK_INT(pace_judge(&p, 200 * CLOCK_MS, 95 * CLOCK_MS), 0);
    CHECK(pace_judge(&p, 205 * CLOCK_MS, 100 * CLOCK_MS) == PACE_LEAST_NS);
}

TEST(a_little_work_is_not_judged)
{
    struct pace p = {.file = -1, .most_ns = MOST};
    CHECK_INT(pace_judge(&p, CLOCK_MS, 100 * CLOCK_MS), 0);
    CHECK(pace_judge(&p, 3 * CLOCK_MS, 100 * CLOCK_MS) > 0);
}

TEST(a_real_time_policy_is_left_for_what_nobody_waits_for)
{
    struct sched_param param = {.sched_priority = 1};
    struct pace p;
    if (sched_setscheduler(0, SCHED_RR, &param) < 0)
        test_skip("machine: no real-time policy");
    pace_init(&p, MOST);
    pace_behind(&p);
    CHECK_INT(sched_getscheduler(0), SCHED_OTHER);
    CHECK(getpriority(PRIO_PROCESS, 0) > 0);
    pace_before(&p);
    CHECK_INT(sched_getscheduler(0), SCHED_RR);
    CHECK_INT(getpriority(PRIO_PROCESS, 0), 0);
    pace_done(&p);
}

#include "engine/steps.h"

#include "base/clock.h"
#include "base/sys.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum rc injected_fault(const struct step *step, struct err *err)
{
#ifdef FAULTS
    const char *wanted = getenv("CHREK_FAULT");
    size_t n = strlen(step->name);
    if (wanted && strncmp(wanted, step->name, n) == 0 && wanted[n] == ':') {
        if (strcmp(wanted + n + 1, "kill") == 0)
            (void)raise(SIGKILL);
        return err_set(err, RC_IO, "fault injected by CHREK_FAULT");
    }
#else
    (void)step;
    (void)err;
#endif
    return RC_OK;
}

/* CHREK_FAULT=call:<n>:fail|kill, or call:count to be told how many there are. */
static const char *arm_call(void)
{
#ifdef FAULTS
    const char *wanted = getenv("CHREK_FAULT");
    if (!wanted || strncmp(wanted, "call:", 5) != 0)
        return NULL;
    char *end = NULL;
    unsigned long n = strtoul(wanted + 5, &end, 10);
    if (end == wanted + 5)
        fault_disarm();
    else
        fault_arm((unsigned)n, strcmp(end, ":kill") == 0 ? FAULT_CRASH : FAULT_FAIL);
    return wanted;
#else
    return NULL;
#endif
}

static void count_calls(const char *wanted)
{
#ifdef FAULTS
    if (wanted && strcmp(wanted, "call:count") == 0)
        (void)fprintf(stderr, "fault points: %u\n", fault_passed());
#else
    (void)wanted;
#endif
}

static uint64_t step_deadline(const struct step *step, uint64_t now, uint64_t whole)
{
    uint64_t own = step->limit_ns ? now + step->limit_ns : 0;
    if (!own || (whole && whole < own))
        return whole;
    return own;
}

static enum rc run_one(const struct step *step, void *ctx, uint64_t whole,
                       struct steps_timings *timings, struct err *err)
{
    uint64_t begun = clock_now();
    enum rc rc = injected_fault(step, err);
    if (!rc)
        rc = step->run(ctx, step_deadline(step, begun, whole), err);
    timings->step[timings->n++] =
        (struct step_timing){.name = step->name, .ns = clock_now() - begun};
    return rc;
}

enum rc steps_run(const struct step *steps, size_t n, void *ctx, uint64_t deadline,
                  const struct steps_observer *observer, struct steps_timings *out_timings,
                  struct err *err)
{
    assert(n <= STEPS_MAX);
    bool ran[STEPS_MAX] = {false};
    out_timings->n = 0;
    const char *armed = arm_call();
    for (size_t i = 0; i < n; i++) {
        if (steps[i].wanted && !steps[i].wanted(ctx))
            continue;
        if (observer && observer->begin)
            observer->begin(observer->arg, &steps[i]);
        enum rc rc = run_one(&steps[i], ctx, deadline, out_timings, err);
        ran[i] = !rc;
        if (!rc)
            continue;
        (void)err_ctx(err, rc, "cannot %s", steps[i].what);
        while (i-- > 0)
            if (ran[i] && steps[i].undo)
                steps[i].undo(ctx);
        return rc;
    }
    count_calls(armed);
    return RC_OK;
}

uint64_t steps_time_of(const struct steps_timings *t, const char *name)
{
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->step[i].name, name) == 0)
            return t->step[i].ns;
    return 0;
}

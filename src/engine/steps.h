/* A sequence of steps that is undone when one of them fails.
 *
 * A checkpoint and a restore are tables of steps.  Each has a name (metrics, timings, tests), an
 * optional undo, and a deadline that its `run` must keep; the runner times each, tells an observer,
 * and on failure calls the undo of every step that had succeeded, last first.  A step whose run
 * fails cleans up after itself.  Undo cannot fail: what it cannot take back it leaves for a sweep.
 *
 * Threads: a sequence runs in its caller's thread.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STEPS_MAX 24

struct step {
    const char *name; /* short, stable: "dump" */
    const char *what; /* for people, as in "cannot <what>": "freeze and dump the processes" */
    enum rc (*run)(void *ctx, uint64_t deadline, struct err *err);
    void (*undo)(void *ctx); /* NULL: nothing to undo */
    uint64_t limit_ns;       /* how long run may take; 0 = as long as the whole sequence */
    /* Whether there is something to do, asked when its turn comes; NULL: always.  A step that is
     * not wanted is neither run, timed nor undone. */
    bool (*wanted)(const void *ctx);
};

struct step_timing {
    const char *name; /* the step's, static */
    uint64_t ns;
};

struct steps_timings {
    size_t n;
    struct step_timing step[STEPS_MAX];
};

/* Told before a step runs; NULL members are skipped. */
struct steps_observer {
    void (*begin)(void *arg, const struct step *step);
    void *arg;
};

/* Run the steps in order.
 *
 * deadline     monotonic ns for the whole, 0 = none; each step gets the smaller of this and its own
 * out_timings  how long each step took that ran; filled on failure too
 * errors       the failing step's, with its `what` in front
 *
 * Fault injection: with faults compiled in, the environment variable CHREK_FAULT=<step>:fail or
 * <step>:kill makes that step fail, or the process die by SIGKILL, just before it would run;
 * call:<n>:fail or call:<n>:kill does so at the n-th fault point of base/sys.h from here on, and
 * call:count says on standard error how many of these a run without a failure has passed. */
enum rc steps_run(const struct step *steps, size_t n, void *ctx, uint64_t deadline,
                  const struct steps_observer *observer, struct steps_timings *out_timings,
                  struct err *err);

/* Nanoseconds of a step, 0 if it did not run. */
uint64_t steps_time_of(const struct steps_timings *t, const char *name);

/* How much of the processors a thread takes for work that nobody waits for.
 *
 * Niceness alone does not keep it out of the way: it counts only within a session where the kernel
 * groups them (autogroups), only within a control group, and not at all below a real-time policy
 * that we were started with.  So such a thread also looks how long it had to wait for a processor:
 * where others want it, it stays away for longer and longer, and comes back to do a little; where
 * nobody does, it goes on.
 *
 * Threads: a pace belongs to one thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct pace {
    int file;                   /* of the scheduler's account of this thread; -1: there is none */
    bool behind;                /* as it is now */
    int policy, priority, nice; /* that we were started with */
    uint64_t ran_ns, waited_ns; /* as of the last look */
    uint64_t pause_ns, most_ns;
};

/* most_ns  the longest pause, at least PACE_LEAST_NS */
#define PACE_LEAST_NS ((uint64_t)8000000)
void pace_init(struct pace *p, uint64_t most_ns);
/* Somebody waits: with the priority that we were started with, as far as we may take it back. */
void pace_before(struct pace *p);
/* Nobody waits. */
void pace_behind(struct pace *p);
/* After a piece of work that nobody waits for: how long to stay away, 0 = not at all. */
uint64_t pace_pause(struct pace *p);
/* The same of given accounts: how long the thread has run, and waited to run, so far. */
uint64_t pace_judge(struct pace *p, uint64_t ran_ns, uint64_t waited_ns);
void pace_done(struct pace *p);

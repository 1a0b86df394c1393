/* The pager's own process, from CRIU's first word to the last page.  Private to pager/.
 * Threads: the main thread of a process that has just been made. */
#pragma once

#include "pager/pager.h"

#include <stdbool.h>

/* What starter, guardian and pager share: memory that all three have mapped. */
struct pager_shared {
    enum pager_state state; /* atomic */
    bool registered;        /* atomic: the pager holds everything that CRIU hands over */
    bool ready;             /* atomic: the starter says that the program is ready */
    bool over;              /* atomic: the starter says that the program has ended */
    struct pager_figures figures;
    enum rc rc; /* of a failure; before `state` says so */
    struct err err;
};

struct serve {
    const struct pager_options *o;
    struct pager_shared *shared;
    int socket;   /* that CRIU connects to */
    int report;   /* a byte for the starter when something has changed; it has gone when the pipe
                     is broken */
    int guardian; /* pidfd */
};

/* errors  what made it impossible to go on: the processes must be ended, and ours after them, in
 * which threads may still be at work */
enum rc serve_run(const struct serve *s, struct err *err);

/* A life in the background: `--detach` of run and restore.
 *
 * detach() forks.  The parent waits until the child's program runs, tells its name, and ends; the
 * child goes on as a session of its own, without terminal, its output in a file or nowhere.
 * Threads: before there are any. */
#pragma once

#include "base/err.h"
#include "engine/registry.h"

#include <stdbool.h>

struct detach {
    int report; /* to the parent */
    int errors; /* the caller's standard error, for what goes wrong before the program runs */
};

/* log     file for the output, appended to; NULL = none
 * out     the child's: give it to detach_begun(); detach_done() in any case
 * returns in the child only; the parent ends by _exit(): 0 when the program runs, else as the child
 *         has ended
 * errors  RC_DENIED, RC_IO, in the parent */
enum rc detach(const char *log, bool json, struct detach *out, struct err *err);

/* For struct life_options: the program runs.  arg: the struct detach */
void detach_begun(void *arg, const struct registry_box *box);
/* For CLEANUP(). */
void detach_done(struct detach *d);

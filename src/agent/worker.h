/* A piece of work in a process of its own: what it needs of memory is gone with it, and its crash
 * is not the agent's.  The agent starts its own program again; a document goes to its standard
 * input, another comes back from its standard output.  When the agent dies, so does the worker.
 * Threads: safe; the calling thread must outlive the worker, as it does, for it waits.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stdatomic.h>
#include <stddef.h>

#define WORKER_MESSAGE_MAX ((size_t)256 << 10)
#define WORKER_FD 3 /* the number that the first descriptor has there */
#define WORKER_FDS_MAX 8

struct worker {
    const char *command; /* the first argument */
    const struct buf *request;
    const int *fds; /* descriptors that it gets, borrowed: WORKER_FD and up */
    size_t n_fds;
    const atomic_bool *stop; /* its end is forced when this becomes true */
};

/* Run it to its end.
 * answer  appended to; its `max` bounds what is taken
 * errors  RC_CANCELLED, RC_TOO_BIG, RC_IO (it crashed) */
enum rc worker_run(const struct worker *w, struct buf *answer, struct err *err);

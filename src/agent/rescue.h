/* One restore for somebody else's container, in a process of its own (agent/worker.h).
 *
 * The worker speaks with the container's entrypoint (assist/talk.h): the agent hands it the
 * connection once it knows who is at the other end.  What the container's files need is done by the
 * entrypoint, with its own rights; the worker reads the checkpoint, lets CRIU restore it in the
 * container, and looks at what has come of it before it may run (engine/audit.h).
 * Threads: a call belongs to one thread.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <yyjson.h>

#define RESCUE_COMMAND "__restore"

/* Texts are borrowed. */
struct rescue {
    const char *store, *id;
    const char *criu;       /* NULL: to be looked for */
    const char *name_space; /* whose checkpoints may be read: those of pods in it */
    uint64_t timeout_ns;    /* 0 = the engine's */
};

/* The descriptors that go with it; borrowed. */
struct rescue_fds {
    int connection;
    int pidfd; /* of the container's first process */
    int streams[3];
};

struct rescue_result {
    uint64_t total_ns, memory_bytes;
};

/* Run a worker to its end.  It tells the entrypoint how it went, unless it crashes; then nothing of
 * what it has begun is left when this returns.
 * stop      its end is forced when this becomes true
 * out_told  whether the entrypoint has been told, or must not be, because something of the restore
 *           does not end; set also on failure
 * errors    those of engine_restore(); RC_NOT_FOUND (no such checkpoint that may be read),
 *           RC_CANCELLED (the entrypoint has given up, or `stop`), RC_DENIED (the tree would have
 *           more rights than the container) */
enum rc rescue_run(const struct rescue *r, const struct rescue_fds *fds, const atomic_bool *stop,
                   struct rescue_result *out, bool *out_told, struct err *err);

/* The worker itself; its exit code. */
int rescue_main(int in, int out);

/* What goes over the line; for tests.  errors RC_CORRUPT */
void rescue_format(const struct rescue *r, struct buf *out);
/* doc  holds the texts of `out`; the caller's, json_docp() */
enum rc rescue_parse(const char *text, size_t len, yyjson_doc **doc, struct rescue *out,
                     struct err *err);

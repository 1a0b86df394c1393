/* One capture, in a process of its own: what it needs of memory is gone with it, and its crash is
 * not the agent's.  The agent starts its own program again, with WORK_COMMAND; a document goes to
 * its standard input, another comes back.
 *
 * When the agent dies, so does the worker, and CRIU with it: the program goes on.  When the agent
 * ends, or the worker gets a SIGTERM, the worker lets the program go first.
 * Threads: a call belongs to one thread.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "codec/compress.h"
#include "engine/engine.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <yyjson.h>

#define WORK_COMMAND "__capture"

/* Texts are borrowed; NULL is absent. */
struct work {
    const char *store, *id;
    const char *criu; /* NULL: to be looked for */
    pid_t pid;
    bool plain;
    enum compress_codec codec;
    uint32_t ghost_limit;              /* bytes; 0 = the engine's */
    uint64_t timeout_ns;               /* 0 = the engine's */
    struct engine_container container; /* its lists: of a request that was parsed only */
    yyjson_val *spec;     /* the container's OCI runtime spec, whose mounts and paths go along; or
                             NULL */
    const char *external; /* further external resources, separated by commas; or NULL */
};

struct work_result {
    uint64_t total_bytes, memory_bytes;
    uint64_t freeze_ns, total_ns;
};

/* Run a worker to its end.
 * stop    its end is forced when this becomes true
 * errors  those of engine_checkpoint(), among them RC_EXISTS (a good checkpoint of this id is
 *         there, and stays); RC_CANCELLED; RC_IO (the worker crashed) */
enum rc work_run(const struct work *w, const atomic_bool *stop, struct work_result *out,
                 struct err *err);

/* The worker itself, with its ends of the conversation; its exit code. */
int work_main(int in, int out);

/* What goes over the line; for tests.  errors RC_CORRUPT */
void work_format(const struct work *w, struct buf *out);
/* doc     holds the texts of `out`; the caller's, json_docp()
 * out     work_done() */
enum rc work_parse(const char *text, size_t len, yyjson_doc **doc, struct work *out,
                   struct err *err);
void work_done(struct work *w);

/* The conversation with chrek-gpu: one request, one answer, each one packet of a socket pair.
 *
 * Text, so that a small program can speak it without a library:
 *
 *   request  VERB [timeout=MS] [map=OLD=NEW,...] [pids=1,2,3]
 *   answer   "ok" or "error RC TEXT", then lines:
 *            driver VERSION CUDA CHECKPOINT MAP      (0 or 1 each)
 *            device UUID BYTES MINOR MIG NAME
 *            process PID STATE THREAD NS
 *            failed PID CODE TEXT
 *
 * Both sides check what they read.  Threads: values, no shared state.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "gpu/facts.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define GPU_PIDS_MAX 512
#define GPU_WHY_MAX 300
#define GPU_MESSAGE_MAX ((size_t)192 << 10) /* a packet of a Unix socket may have so much */

#define GPU_ALONE_SIGNAL SIGHUP /* for chrek-gpu: who started it has died */

enum gpu_verb {
    GPU_HELLO,      /* what driver and GPUs there are */
    GPU_FIND,       /* which of these processes use CUDA */
    GPU_LOCK,       /* let running work end and hold what comes; all or none */
    GPU_CHECKPOINT, /* memory of the GPU into memory of the process; all, or all run again */
    GPU_RESTORE,    /* and back, onto the GPUs of the map */
    GPU_UNLOCK,
    GPU_RELEASE, /* from whatever state to running; waits for who is being traced, e.g. by CRIU */
    GPU_VERB_COUNT_,
};

const char *gpu_verb_name(enum gpu_verb verb);

enum gpu_state {
    GPU_RUNNING,
    GPU_LOCKED,
    GPU_CHECKPOINTED,
    GPU_FAILED,
    GPU_UNKNOWN,
    GPU_STATE_COUNT_,
};

const char *gpu_state_name(enum gpu_state state);

struct gpu_request {
    enum gpu_verb verb;
    uint32_t timeout_ms; /* of a lock; 0 = none */
    size_t n_pids;
    pid_t pid[GPU_PIDS_MAX];
    struct gpu_map map;
};

struct gpu_process {
    pid_t pid;
    enum gpu_state state;
    pid_t thread; /* that carries out what the driver asks of the process; 0 = not told */
    uint64_t ns;  /* how long the request took for this process */
    int code;     /* of the driver; 0 = success */
    char why[GPU_WHY_MAX];
};

struct gpu_reply {
    enum rc rc;
    char why[GPU_WHY_MAX];
    bool has_facts;
    struct gpu_facts facts;
    size_t n;
    struct gpu_process process[GPU_PIDS_MAX];
};

void gpu_request_format(const struct gpu_request *r, struct buf *out);
/* errors  RC_INVALID (what makes no sense) */
enum rc gpu_request_parse(const char *text, size_t len, struct gpu_request *out, struct err *err);

void gpu_reply_format(const struct gpu_reply *r, struct buf *out);
/* errors  RC_CORRUPT (which line makes no sense) */
enum rc gpu_reply_parse(const char *text, size_t len, struct gpu_reply *out, struct err *err);

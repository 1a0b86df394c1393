/* The life of a command under `chrek run` (and of a checkpoint under `chrek restore`): restored if
 * there is a checkpoint of it, started cold and checkpointed once ready if there is none, cold
 * again with its original arguments if the restore fails.
 *
 * Threads: one life a process, in its main thread; it owns the process's signals and terminal.
 */
#pragma once

#include "base/err.h"
#include "engine/engine.h"
#include "engine/registry.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct life_options {
    struct store *store;
    const char *id;    /* of the checkpoint; NULL: none is looked for and none is made */
    const char *name;  /* wanted name of the box */
    char *const *argv; /* the command; NULL: only a restore will do */
    char *const *envp;
    const char *ready;         /* when to checkpoint, engine/ready.h; NULL: never by ourselves */
    uint64_t ready_timeout_ns; /* give up waiting, or trying again what may pass; 0 = never */
    bool cold;                 /* look for no checkpoint; a new one replaces an old one */
    bool stop;         /* end once the checkpoint is safe, or there already, or impossible */
    bool incremental;  /* engine.h */
    uint64_t every_ns; /* checkpoint again and again, each in the place of the one before; 0 = once
                          when ready.  Also of a restored program, once its memory is all there */
    bool no_fallback;  /* a failed restore is a failure */
    bool private_net;
    bool no_tty;      /* pipes even on a terminal */
    bool no_io_uring; /* of a cold start; a restored program has what it had */
    bool tcp_established;
    bool skip_in_flight;       /* of the checkpoint */
    bool plain;                /* page images as files; else packed memory */
    enum compress_codec codec; /* of packed memory */
    uint32_t ghost_limit;
    uint64_t keep_limit;
    enum engine_mode mode; /* of a restore */
    uint64_t record_ns;    /* of its working set, 0 = a default */
    uint64_t timeout_ns;
    const char *criu_log_dir; /* a copy of CRIU's log of a failed restore goes here; NULL = none */
    const char *notify;       /* how a restored program is told; NULL: as its checkpoint says */
    const struct metadata_label *labels;
    size_t n_labels;
    bool quiet; /* say nothing about checkpoints that went well */
    /* Called once the program runs, with its box; NULL = nobody wants to know. */
    void (*begun)(void *arg, const struct registry_box *box);
    void *begun_arg;
};

struct life_end {
    int status;   /* wait status of the main process */
    bool stopped; /* it was ended by a checkpoint, on purpose; status does not count */
    bool unsaved; /* with stop: no checkpoint is there; that was told, and when that was why it was
                     ended, status is 0 */
    bool lost;    /* it was ended because its memory could not be brought in; that was told */
};

/* Live it to its end.
 * errors  RC_NOT_FOUND, RC_DENIED (the command cannot be executed: cold start only; *out_exec is
 *         true), RC_CANCELLED (while it was restored, by the engine's `cancel`), and those of a
 *         restore without fallback */
enum rc life_run(const struct engine *e, const struct life_options *o, struct life_end *out,
                 bool *out_exec, struct err *err);

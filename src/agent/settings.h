/* What the agent is told: its options and environment (contract, 2.5).  Threads: constant. */
#pragma once

#include "base/err.h"
#include "base/opt.h"
#include "codec/compress.h"

#include <stdbool.h>
#include <stdint.h>

struct settings {
    const char *node;
    const char *name_space; /* NULL: all */
    const char *store;
    const char *runtime; /* socket */
    const char *host_proc;
    const char *listen;
    const char *socket;     /* for restore-entrypoints; empty: none */
    const char *from;       /* "watcher" */
    const char *kubeconfig; /* NULL: what a pod has */
    const char *context;
    const char *criu;
    const char *format, *compression;
    const char *external; /* CRIU's external resources, separated by commas; NULL: none */
    uint64_t ghost_limit;
    uint64_t timeout_s; /* of CRIU; 0 = the engine's */
    uint64_t tries;
    uint64_t backoff_ns;
    bool plain;
    enum compress_codec codec;
};

extern const struct opt settings_options[];

/* Defaults, to be parsed over. */
void settings_init(struct settings *s);
/* What no table can check.  errors RC_INVALID, RC_UNSUPPORTED */
enum rc settings_check(struct settings *s, struct err *err);

/* The restore entrypoint's environment: every variable of the contract, read once.
 * Strings are borrowed from the environment.  Threads: the program's main thread only. */
#pragma once

#include "engine/mode.h"
#include "store/vault.h"

#include <stdbool.h>
#include <stdint.h>

struct settings {
    const struct vault *vault;   /* of what these say; set by the program, NULL before */
    const char *hash;            /* DYN_CHECKPOINT_HASH, or NULL */
    const char *path;            /* DYN_CHECKPOINT_PATH, /checkpoints */
    const char *marker;          /* DYN_RESTORE_MARKER_FILE, /tmp/dynamo-restored */
    const char *work_dir;        /* CRIU_WORK_DIR, /tmp */
    const char *cuda_plugin_dir; /* CUDA_PLUGIN_DIR, /usr/local/lib/criu */
    const char *trigger;         /* RESTORE_TRIGGER, /tmp/restore-trigger */
    const char *embedded;        /* EMBEDDED_CHECKPOINT_PATH, /embedded-checkpoint */
    const char *default_cmd;     /* DEFAULT_CMD, or NULL */
    const char *log_dir;         /* CRIU_LOG_DIR, or NULL */
    const char *key_file;        /* CHREK_KEY_FILE, or NULL */
    const char *key_command;     /* CHREK_KEY_COMMAND, or NULL */
    const char *trust_key;       /* CHREK_TRUST_KEY, or NULL */
    const char *agent_socket;    /* CHREK_AGENT_SOCKET, /run/chrek-agent/agent.sock; "": none */
    uint64_t agent_timeout_ns;   /* CHREK_AGENT_TIMEOUT, 15 s: how long it may be silent */
    uint64_t timeout_s;          /* CRIU_TIMEOUT, 0 = without a limit */
    uint64_t wait_timeout_s;     /* RESTORE_WAIT_TIMEOUT, 300 */
    uint64_t key_timeout_ns;     /* CHREK_KEY_TIMEOUT, 0 = the default */
    int log_level;               /* CRIU_LOG_LEVEL, 4 */
    enum engine_mode mode;       /* CHREK_RESTORE_MODE; CRIU_LAZY_PAGES: lazy */
    bool skip_in_flight;         /* CRIU_SKIP_IN_FLIGHT */
    bool auto_dedup;             /* CRIU_AUTO_DEDUP */
    bool wait;                   /* WAIT_FOR_CHECKPOINT */
    bool debug;                  /* DEBUG */
    bool has_cuda_plugin;        /* cuda_plugin.so is in cuda_plugin_dir */
    bool require_signature;      /* CHREK_REQUIRE_SIGNATURE */
};

/* Read it; what does not parse is warned of and ignored. */
void settings_read(struct settings *s);

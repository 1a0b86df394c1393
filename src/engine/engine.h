/* The engine: the sequence of a checkpoint and of a restore, on one machine.
 *
 * It knows stores, CRIU, boxes and files; it knows no Kubernetes and no command line.  Both
 * sequences are tables of steps (engine/steps.h) that are undone when one fails: a failed
 * checkpoint leaves the workload running and no trace in the store, a failed restore leaves an
 * empty box.
 *
 * Threads: a call belongs to one thread; calls on different trees may run at once.  Calls start
 * threads of their own (digests) and end them before they return.
 */
#pragma once

#include "base/cancel.h"
#include "base/err.h"
#include "engine/mode.h"
#include "engine/steps.h"
#include "store/metadata.h"
#include "store/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct box;
struct pager;
struct place;

/* What every call needs. */
struct engine {
    const char *criu; /* path of the criu program, see engine_find_criu() */
    /* Told what goes on, at most every 100 ms and at each step; any member may be NULL.
     * done, total  bytes; total 0 = unknown */
    void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
    void (*warn)(void *arg, const char *text); /* one line for people */
    void *arg;
    /* Ends a call with RC_CANCELLED while a tree stands still or is half made, and all that is
     * undone as after any other failure; NULL: nothing does. */
    struct cancel *cancel;
    bool by_signal; /* the engine arms it meanwhile (base/cancel.h); a checkpoint that is stored
                       afterwards is still ended by a signal at once */
};

/* Find the criu program: $CHREK_CRIU, then `lib/chrek/criu/sbin/criu` beside our own program's
 * installation, then the build tree's, then /usr/local/sbin/criu, then PATH.
 * out     the caller's (free)
 * errors  RC_NOT_FOUND, saying where it looked */
enum rc engine_find_criu(char **out, struct err *err);

/* Start it and ask for its version.
 * errors  RC_NOT_FOUND, RC_DENIED, RC_TIMEOUT, RC_IO */
enum rc engine_check_criu(const char *criu, struct err *err);

/* A mount as a container runtime was told to make it. */
struct engine_oci_mount {
    const char *destination, *source, *type;
    const char *const *options; /* NULL-terminated, or NULL */
};

/* A container that a runtime has made, and where it comes from, as its orchestrator calls it. Texts
 * and lists are borrowed; NULL is unknown. */
struct engine_container {
    const char *node;
    const char *container_id; /* without the runtime's scheme */
    const char *pod_name, *pod_namespace, *pod_ip;
    const char *image;
    /* Of its runtime spec; lists end with NULL. */
    const char *const *masked_paths, *const *readonly_paths;
    const struct engine_oci_mount *mounts;
    size_t n_mounts;
    const char *const *external; /* further external resources for CRIU */
};

struct engine_checkpoint_request {
    struct store *store;
    const char *id;
    bool replace; /* an existing checkpoint of this id is replaced, else it is kept */
    pid_t pid;    /* root of the tree, as we see it */
    /* The root is the first process of this container: its namespaces but the network are saved
     * with it, its mounts are left to whoever makes the place for a restore.  NULL: no container.
     */
    const struct engine_container *container;
    bool stop;  /* end the tree once the checkpoint is safe; else it goes on */
    bool early; /* with stop: end it as soon as its memory has been copied, before it is stored;
                   a failure after that loses it.  Memory is copied within the budget of a tree
                   that goes on.  Not with plain; where a quota might refuse the checkpoint it is
                   ended when that is safe, after all, with a warning */
    bool incremental; /* read memory before the freeze, and in it only what was written meanwhile;
                         where that is not possible all is read in the freeze, with a warning */
    bool tcp_established;
    bool skip_in_flight;       /* connections that are being opened are dropped */
    bool plain;                /* page images as files, readable by any CRIU; else packed */
    enum compress_codec codec; /* of packed memory */
    uint32_t ghost_limit;      /* bytes of a deleted file that are kept; 0 = 512 MiB */
    uint64_t keep_limit;       /* bytes of memory at most that are copied when the tree goes on, as
                                  far as there is room; ENGINE_KEEP_ALL = no other limit */
    uint64_t timeout_ns;       /* for all of it; 0 = ENGINE_TIMEOUT_NS */
    char *const *command; /* what was started, for people and for a cold start; NULL = look it up */
    const char *name;     /* of the box, or NULL */
    const char *notify;   /* how the application is told of a restore, or NULL */
    const struct metadata_label *labels;
    size_t n_labels;
    /* With stop: told that the checkpoint is safe, just before the tree is ended; or NULL. */
    void (*stopping)(void *arg);
    void *stopping_arg;
};

#define ENGINE_TIMEOUT_NS ((uint64_t)1800 * 1000000000)
#define ENGINE_NO_TIMEOUT UINT64_MAX
#define ENGINE_GHOST_LIMIT (512U << 20)
#define ENGINE_KEEP_ALL UINT64_MAX

struct engine_outcome {
    struct steps_timings timings;
    uint64_t freeze_ns;    /* how long the tree stood still */
    uint64_t sync_ns;      /* checkpoint: waited for the disk; within the steps */
    uint64_t pages_bytes;  /* memory written or read */
    uint64_t total_bytes;  /* of the checkpoint directory */
    pid_t pid;             /* restore: the root in the box or place */
    int master;            /* restore: master of the pty, the caller's; -1 without one */
    enum engine_mode mode; /* restore: how the memory came, or comes */
    struct pager *pager;   /* restore: brings in memory while the program runs (pager/pager.h); the
                              caller's, pager_end() once the program has ended; NULL in mode full */
};

/* Freeze a process tree, store it, let it go on (or end it).
 *
 * The checkpoint appears whole or not at all; with `stop` the tree is ended only after the
 * checkpoint is durable, unless `early` is asked for.  If the call fails the tree runs as before;
 * after an early end the message says that it does not.
 *
 * errors  RC_EXISTS (id is there and not to be replaced), RC_NOT_FOUND (no such process),
 *         RC_UNSUPPORTED (the tree holds what cannot be saved: which, and what to do), RC_CONFLICT
 *         (the same, but it passes: try again; or it is just being saved by somebody else),
 * RC_DENIED, RC_NO_SPACE, RC_TIMEOUT, RC_CANCELLED, RC_IO */
enum rc engine_checkpoint(const struct engine *e, const struct engine_checkpoint_request *req,
                          struct engine_outcome *out, struct err *err);

struct engine_restore_request {
    struct store_entry *entry; /* found and accepted by the store */
    struct box *box;           /* fresh: nothing has run in it; NULL: restore right here, into our
                                  own namespaces, with the root as our child */
    /* Instead of a box: into this container (container/place.h), whose first process becomes the
     * root's parent.  The tree gets no more rights than that process has (engine/audit.h).  What
     * the container's own files need is up to `prepare`, /dev/shm too. */
    const struct place *place;
    /* With a place: the tree is whole and stands still; an error ends it.  NULL: nothing to ask.
     * pid  of the root in the container */
    enum rc (*ready)(void *arg, pid_t pid, struct err *err);
    /* Called once the checkpoint is accepted and verified, before it is used: what must not be done
     * for one that is refused.  May still fill in `app_dir`, `config_file` and `external`.  NULL =
     * nothing to do. */
    enum rc (*prepare)(void *arg, struct err *err);
    void *prepare_arg;    /* also of `ready` */
    int streams[3];       /* the application's ends of our pipes; -1 where it has none */
    const char *app_dir;  /* without a box: the application directory, NULL = none */
    const char *work_dir; /* for CRIU's log; NULL: a directory in /tmp that goes away */
    int log_level;        /* of CRIU, 0..4 */
    bool skip_in_flight;
    const char *config_file;     /* of CRIU, for what has no field; NULL = none */
    const char *const *external; /* CRIU's external resources, NULL-terminated, or NULL */
    bool tcp_established;
    enum engine_mode mode; /* what cannot be had becomes ENGINE_FULL, with a warning */
    uint64_t record_ns;    /* how long a first restore in mode workingset or lazy records what the
                              program touches, 0 = a default */
    uint64_t timeout_ns;   /* 0 = ENGINE_TIMEOUT_NS, or ENGINE_NO_TIMEOUT */
    const char *notify;    /* how the application is told; NULL: as the checkpoint says */
    const char *hostname;  /* identity of the new life */
    char *const *env;
    const char *criu_log_dir; /* a copy of the log of a failed restore goes here; NULL = none */
};

/* Bring a checkpoint back to life in a box.
 *
 * Everything is verified before the tree runs: the marker and the small files before CRIU reads
 * them, the memory images while CRIU works, with the tree held until the last byte is known to be
 * right.  In the modes workingset and lazy that holds for each page by itself: it is verified
 * before the program sees it, and one that cannot be had ends the program (pager/pager.h).  On
 * failure the box holds no process but, perhaps, its init.
 *
 * errors  RC_CORRUPT (the checkpoint is damaged), RC_UNSUPPORTED (made for another machine),
 *         RC_NOT_FOUND (a file that the tree needs is missing), RC_CONFLICT (a port is taken),
 *         RC_DENIED, RC_TIMEOUT, RC_CANCELLED, RC_IO */
enum rc engine_restore(const struct engine *e, const struct engine_restore_request *req,
                       struct engine_outcome *out, struct err *err);

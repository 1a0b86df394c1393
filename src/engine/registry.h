/* The boxes that run on this machine, by name: /run/chrek/boxes/<name>/box.json.
 *
 * A record is made by the box's supervisor, which holds a lock on its directory for as long as it
 * lives, and removed by it.  A record that nobody holds is stale: treated as absent, and removed by
 * whoever comes across it.  The lock is seen from every PID namespace and needs no PID.
 * Threads: safe.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define REGISTRY_DIR "/run/chrek/boxes"

struct registry_box {
    char *name;
    uint64_t pid_ns;      /* inode of the PID namespace that the PIDs here belong to */
    pid_t owner;          /* the supervisor */
    uint64_t owner_start; /* clock ticks since boot */
    pid_t init;           /* of the box, as the host sees it; 0 while there is none */
    uint64_t init_start;  /* clock ticks since boot */
    pid_t pid;            /* main process inside the box, 0 while there is none */
    char *store, *id;     /* where its checkpoints go, NULL = nowhere yet */
    char *notify;
    char *started_at; /* UTC, RFC 3339 */
    uint64_t generation;
    char **command; /* ends with NULL; empty: not known */
};

/* Enter a box under `wanted`, or `wanted.2` and so on while that name is taken by a living one.
 * b->name   is set: the caller's
 * out_hold  a descriptor, the caller's: while it is open the box counts as living
 * errors    RC_INVALID (no name for a file), RC_DENIED, RC_IO */
enum rc registry_enter(struct registry_box *b, const char *wanted, int *out_hold, struct err *err);
/* Write the record again after a change. */
enum rc registry_update(const struct registry_box *b, struct err *err);
/* Remove the record that registry_enter() has made; the hold is still open. */
void registry_leave(const char *name);

/* errors RC_NOT_FOUND (nothing of that name runs), RC_UNSUPPORTED (it runs in another PID
 * namespace), RC_DENIED, RC_IO.  out: the caller's, registry_box_done() */
enum rc registry_find(const char *name, struct registry_box *out, struct err *err);
/* All living boxes of our PID namespace, by name.  out: the caller's, each registry_box_done(),
 * then free(). */
enum rc registry_list(struct registry_box **out, size_t *out_n, struct err *err);
void registry_box_done(struct registry_box *b);

/* PID of a box's main process as the host sees it.  errors RC_NOT_FOUND */
enum rc registry_host_pid(pid_t init, pid_t inner, pid_t *out, struct err *err);

/* A checkpoint with `stop` leaves word for the supervisor that the end is no accident: once it is
 * safe and before it ends the tree, for the word is never taken back. */
void registry_mark_stopped(const char *name);
bool registry_was_stopped(const char *name);

/* The doctor: can this machine checkpoint, can this process be checkpointed; if not, why, and what
 * the user can change.
 *
 * A finding is a fact about the machine or one process.  The process checks only read /proc and do
 * not stop or touch the process, so they also serve as a look ahead before a checkpoint; what they
 * do not find can still fail.  `id` values are part of the interface: they are not renamed.
 *
 * Threads: a report belongs to one thread.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum doctor_level {
    DOCTOR_OK,   /* looked at, and fine */
    DOCTOR_WARN, /* works, but not as one may expect */
    DOCTOR_FAIL, /* a checkpoint or restore will fail */
    DOCTOR_LEVEL_COUNT_,
};

/* The findings that pass by themselves. */
#define DOCTOR_TCP_PENDING "tcp-pending"
#define DOCTOR_BEING_SAVED "being-saved"

const char *doctor_level_name(enum doctor_level level); /* "ok", "warn", "fail" */

struct doctor_finding {
    enum doctor_level level;
    const char *id; /* "io-uring"; static */
    pid_t pid;      /* the process, 0 = the machine */
    unsigned more;  /* further cases of it in the same process; `what` counts them too */
    char *what;     /* the fact: "process 4711 (node) uses io_uring: descriptor 17" */
    char *why;      /* what follows from it; NULL when the level is OK */
    char *remedy;   /* what to do about it, a sentence; NULL when there is nothing to do */
};

struct doctor_report {
    struct doctor_finding *list; /* in the order of the checks */
    size_t n;
};

#define DOCTOR_REPORT_INIT                                                                         \
    {                                                                                              \
        .list = NULL                                                                               \
    }

void doctor_report_done(struct doctor_report *r); /* for CLEANUP() */
/* The worst level of all; DOCTOR_OK when there is nothing. */
enum doctor_level doctor_worst(const struct doctor_report *r);
/* The first finding of that level, or NULL; borrowed. */
const struct doctor_finding *doctor_first(const struct doctor_report *r, enum doctor_level level);

struct doctor_machine {
    const char *proc;  /* a proc file system, NULL = "/proc" */
    const char *criu;  /* path of the CRIU program, NULL = none was found */
    const char *store; /* where checkpoints go, NULL = do not look */
    uint64_t deadline; /* monotonic ns for what asks CRIU, 0 = 20 s from now */
};

/* Append what is to say of this machine.
 * errors  RC_NOT_FOUND, RC_INVALID (no proc file system); a check that cannot be made is a finding
 */
enum rc doctor_check_machine(const struct doctor_machine *request, struct doctor_report *r,
                             struct err *err);

struct doctor_process {
    const char *proc;     /* a proc file system, NULL = "/proc" */
    pid_t pid;            /* root of the tree, as `proc` numbers it */
    uint64_t ghost_limit; /* bytes of a deleted file that are kept; 0 = the engine's default */
    bool tcp_established; /* connections to the outside are to be kept */
    bool skip_in_flight;  /* connections that nobody has accepted yet are to be dropped */
    bool container;       /* a container is to be saved with its namespaces: may be PID 1 */
    bool quick;           /* leave out what takes time in proportion to the memory (smaps) */
};

/* Append what is to say of a process and all its descendants.  When nothing stands against a
 * checkpoint there is one finding "process" of level OK, and any warnings.
 * errors  RC_NOT_FOUND (no such process), RC_INVALID (no proc file system), RC_IO */
enum rc doctor_check_process(const struct doctor_process *request, struct doctor_report *r,
                             struct err *err);

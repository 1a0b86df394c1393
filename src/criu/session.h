/* One `criu swrk` process and the conversation with it.
 *
 * CRIU is driven as a program, over the socket that `criu swrk` serves; it is never linked.  The
 * process can be started inside the namespaces of the tree that it works on.  Every conversation
 * has a deadline, because CRIU can hang for ever: when it passes, CRIU is killed and the call fails
 * with RC_TIMEOUT.  It can be given up before: then CRIU is refused whatever it asks, so that it
 * undoes what it has done, and is killed when that takes longer than some seconds.  What CRIU says
 * over the socket is checked like anything else from outside.
 *
 * Threads: a session belongs to one thread.  A session serves one request.
 */
#pragma once

#include "base/cancel.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CR_PASS_MAX 16

struct cr_session;

struct cr_launch {
    const char *criu; /* path of the program, as seen by us; failing that, as seen after `enter` */
    /* Run in the first child, before CRIU's own process is made: setns() and the like.  Returns 0
     * or a negative errno.  Must use async-signal-safe calls only.  NULL: stay where we are. */
    int (*enter)(void *arg);
    void *enter_arg;
    /* The program's path as seen after `enter`.  CRIU then gets nothing of ours: no descriptor of
     * its folder and no environment but `env`; whoever may look into it there learns nothing. NULL:
     * `criu` is executed. */
    const char *inside;
    const int *pass_fds;         /* descriptors that CRIU must have, borrowed */
    size_t n_pass;               /* at most CR_PASS_MAX */
    const char *env;             /* "NAME=VALUE" to add to CRIU's environment, or NULL */
    uint64_t deadline;           /* by when it must run: monotonic ns, 0 = none */
    const struct cancel *cancel; /* ends conversations early, borrowed for the session; or NULL */
    /* When we are killed ourselves CRIU has time to let the tree go, or to undo what it has made:
     * as long as it works, until `until`; one that does nothing for some seconds is killed. */
    bool watched;
    uint64_t patience_ns; /* these seconds; 0 = 15 */
    uint64_t until;       /* monotonic ns; 0 = as long as it works */
    /* For who dumps: CRIU does not go down with a signal that is sent to everybody around it.  A
     * restoring CRIU ends helpers of its own by such signals. */
    bool deaf;
};

/* Start CRIU.
 * out     the caller's, cr_session_freep()
 * errors  RC_NOT_FOUND (no such program), RC_DENIED (namespaces), RC_TIMEOUT, RC_IO */
enum rc cr_session_open(const struct cr_launch *launch, struct cr_session **out, struct err *err);

/* The number that pass_fds[i] has inside CRIU: what `images_fd` and the like mean. */
int cr_session_fd(size_t i);

/* Kill CRIU if it still runs.  A tree that it was dumping goes on; one that it was restoring is
 * left to the init of its PID namespace.  NULL is fine. */
void cr_session_freep(struct cr_session **p);

/* CRIU's PID, as we see it. */
pid_t cr_session_pid(const struct cr_session *s);

/* Whether it has ended without an answer, or has to be ended: what it held may not be as it was. */
bool cr_session_broken(const struct cr_session *s);

enum cr_event {
    CR_UNKNOWN, /* a notification of a newer CRIU: answered with success */
    CR_PRE_DUMP,
    CR_POST_DUMP, /* images are written, the tree is still frozen */
    CR_NETWORK_LOCK,
    CR_NETWORK_UNLOCK,
    CR_PRE_RESTORE,
    CR_SETUP_NAMESPACES,
    CR_POST_SETUP_NAMESPACES,
    CR_POST_RESTORE,
    CR_PRE_RESUME, /* everything is restored, every task still stopped */
    CR_POST_RESUME,
    CR_ORPHAN_PTS_MASTER, /* fd: master of a restored pty */
    CR_STATUS_READY,
    CR_PRE_STREAM,
    CR_QUERY_EXT_FILES,
    CR_EVENT_COUNT_,
};

/* Told of CRIU's notifications, with CRIU waiting for the return.  An error makes CRIU give up, and
 * is what the call returns.
 * pid  as CRIU reports it (inside its PID namespace), 0 if it does not
 * fd   the callee's, or -1 */
struct cr_hooks {
    enum rc (*event)(void *arg, enum cr_event event, pid_t pid, int fd, struct err *err);
    void *arg;
};

struct cr_inherit {
    const char *key; /* "pipe:[4711]" */
    int fd;          /* inside CRIU: cr_session_fd() */
};

/* What dump and restore may be told; zero is CRIU's default. */
struct cr_opts {
    pid_t pid;               /* dump: root of the tree, in CRIU's PID namespace */
    int images_fd;           /* inside CRIU */
    int work_fd;             /* inside CRIU; -1: same as images */
    const char *log_file;    /* in the work directory */
    int log_level;           /* 0..4 */
    const char *root;        /* root directory for restore, or NULL */
    const char *config_file; /* options that have no field, or NULL */
    bool leave_running;      /* dump: the tree goes on */
    bool shell_job;          /* the session leader may be outside the tree */
    bool tcp_established, tcp_close, tcp_skip_in_flight;
    bool file_locks, link_remap, ext_unix_sk, ext_masters, orphan_pts_master;
    bool evasive_devices, force_irmap, lazy_pages;
    bool rst_sibling, mntns_compat_mode;
    uint32_t ghost_limit, timeout_s;
    const char *const *external; /* NULL-terminated, or NULL */
    const struct cr_inherit *inherit;
    size_t n_inherit;
};

/* Dump the tree of opts->pid.  deadline: monotonic ns, 0 = none; a hook of CR_POST_DUMP may outlast
 * it, CRIU then gets some seconds to let the tree go or to end it.
 * errors  what a hook returned; RC_TIMEOUT; RC_CANCELLED (the launch's `cancel`); RC_IO with CRIU's
 *         own words (the log says more, see criu/explain.h) */
enum rc cr_dump(struct cr_session *s, const struct cr_opts *opts, const struct cr_hooks *hooks,
                uint64_t deadline, struct err *err);

/* Restore.  out_pid: the root's PID in CRIU's PID namespace.  Errors as for cr_dump(). */
enum rc cr_restore(struct cr_session *s, const struct cr_opts *opts, const struct cr_hooks *hooks,
                   uint64_t deadline, pid_t *out_pid, struct err *err);

struct cr_facts {
    int major, minor, sublevel; /* 4.2.1 */
};

/* Ask for CRIU's version. */
enum rc cr_version(struct cr_session *s, uint64_t deadline, struct cr_facts *out, struct err *err);

/* Let CRIU try whether this kernel has what it needs.
 * errors  RC_IO with CRIU's own words, RC_TIMEOUT */
enum rc cr_check(struct cr_session *s, uint64_t deadline, struct err *err);

/* What kernel and CRIU can do together beyond what is always needed. */
struct cr_features {
    bool mem_track;   /* soft-dirty pages: incremental dumps by CRIU */
    bool lazy_pages;  /* userfaultfd: a process runs before its memory is loaded */
    bool pidfd_store; /* recognises a reused PID between two dumps */
};

enum rc cr_features(struct cr_session *s, uint64_t deadline, struct cr_features *out,
                    struct err *err);

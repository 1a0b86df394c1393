/* Namespaces of processes: which they are, whether two processes share them.
 * To step into them see container/join.h.  Threads: safe. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum ns_kind {
    NS_MNT,
    NS_PID,
    NS_PID_CHILDREN, /* where children will be born; differs from NS_PID after unshare() */
    NS_NET,
    NS_IPC,
    NS_UTS,
    NS_USER,
    NS_CGROUP,
    NS_TIME,
    NS_TIME_CHILDREN,
    NS_COUNT_,
};

/* "mnt", as the links in /proc/<pid>/ns are called. */
const char *ns_name(enum ns_kind kind);
/* The CLONE_NEW* flag. */
int ns_flag(enum ns_kind kind);

struct ns_set {
    struct {
        dev_t dev;
        ino_t ino; /* 0: the kernel has no such namespace, or the process is a zombie */
    } id[NS_COUNT_];
};

/* Of an open task (container/task.h).
 * errors  RC_NOT_FOUND (it has gone), RC_DENIED */
enum rc ns_read(int task, struct ns_set *out, struct err *err);

/* Whether both are known and the same. */
bool ns_same(const struct ns_set *a, const struct ns_set *b, enum ns_kind kind);
/* Whether both are known and differ. */
bool ns_differ(const struct ns_set *a, const struct ns_set *b, enum ns_kind kind);

/* Open one namespace.  out: the caller's (close).
 * errors  RC_NOT_FOUND (the process has gone), RC_UNSUPPORTED (no such kind), RC_DENIED */
enum rc ns_open(int task, enum ns_kind kind, int *out, struct err *err);

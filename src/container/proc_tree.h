/* What /proc says of a process and its descendants.
 * Everything here can be stale when it is returned.  Threads: safe. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct proc_facts {
    pid_t pid;   /* as we see it */
    pid_t inner; /* in its own PID namespace */
    pid_t ppid;  /* as we see it, 0 if outside */
    char comm[17];
    char state;   /* 'S', 'Z', ... */
    bool ending;  /* killed, or on its way out: it does nothing any more */
    uid_t uid;    /* real */
    pid_t tracer; /* 0 = not traced */
    uint64_t rss_bytes;
    uint64_t start; /* clock ticks since boot: tells a reused PID */
};

/* errors RC_NOT_FOUND, RC_IO */
enum rc proc_facts_read(pid_t pid, struct proc_facts *out, struct err *err);

/* `root` and all its descendants, root first.
 * out     the caller's (free); out_n at least 1
 * errors  RC_NOT_FOUND, RC_TOO_BIG (too many processes run here), RC_IO */
enum rc proc_tree(pid_t root, struct proc_facts **out, size_t *out_n, struct err *err);

/* All processes of the PID namespace of `pid`, itself among them.  As above. */
enum rc proc_in_namespace(pid_t pid, struct proc_facts **out, size_t *out_n, struct err *err);

/* All processes whose parent is `parent`: like proc_tree(), may be empty. */
enum rc proc_children(pid_t parent, struct proc_facts **out, size_t *out_n, struct err *err);

/* The NUL-separated list of /proc/<pid>/cmdline or environ as a NULL-terminated array.
 * out     the caller's, proc_free_list() */
enum rc proc_list(pid_t pid, const char *file, char ***out, struct err *err);
void proc_free_list(char **list);

/* Where a link such as "cwd" or "fd/0" points.  out: the caller's (free). */
enum rc proc_link(pid_t pid, const char *name, char **out, struct err *err);

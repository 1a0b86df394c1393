/* One process as /proc shows it.
 *
 * A task is its open /proc/<pid> directory: whatever is read through it belongs to the process that
 * was there when it was opened, or fails with RC_NOT_FOUND once that has gone; a reused PID cannot
 * be mistaken for it.  `proc` is any proc file system (PROC_FD of our own /proc, or the host's,
 * mounted elsewhere), PIDs are those of that file system.
 *
 * What is read can be stale when it is returned.  The text of /proc is treated as outside bytes.
 * Threads: safe.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TASK_NAME_MAX 64
#define TASK_NS_DEPTH_MAX 33 /* PID namespaces nest 32 deep in Linux */

/* Open a proc file system: $path, "/proc".  out: the caller's (close).
 * errors  RC_NOT_FOUND, RC_DENIED, RC_INVALID (no proc file system) */
enum rc task_open_proc(const char *path, int *out, struct err *err);

/* out     the caller's (close)
 * errors  RC_NOT_FOUND (no such process), RC_DENIED */
enum rc task_open(int proc, pid_t pid, int *out, struct err *err);

/* Append a file of the task ("status", "net/tcp") to `out`.
 * errors  RC_NOT_FOUND (the process has gone, or there is no such file), RC_DENIED, RC_TOO_BIG */
enum rc task_read(int task, const char *file, struct buf *out, struct err *err);

/* Where a link ("exe", "cwd", "fd/3", "ns/mnt") points.  out: the caller's (free).
 * errors  RC_NOT_FOUND, RC_DENIED */
enum rc task_link(int task, const char *name, char **out, struct err *err);

/* A file of strings that each end in NUL ("cmdline", "environ") as a NULL-terminated array.
 * out     the caller's, task_list_free(); of a kernel thread or zombie an empty array */
enum rc task_list(int task, const char *file, char ***out, struct err *err);
void task_list_free(char **list);
void task_list_freep(char ***list); /* for CLEANUP() */

struct task_stat {
    pid_t pid, ppid, pgid, sid;
    char state;     /* 'S', 'Z', ... */
    int tty;        /* device number of the controlling terminal, 0 = none */
    unsigned flags; /* the kernel's PF_*, see task_is_kernel_thread() */
    unsigned threads;
    uint64_t start_ticks; /* since boot: with the PID it names a process for ever */
    uint64_t rss_pages;
    char name[TASK_NAME_MAX];
};

/* errors  RC_CORRUPT (text makes no sense) */
enum rc task_stat_parse(const char *text, size_t len, struct task_stat *out, struct err *err);
/* errors  RC_NOT_FOUND, RC_CORRUPT */
enum rc task_stat_read(int task, struct task_stat *out, struct err *err);

bool task_is_kernel_thread(const struct task_stat *s);
/* On its way out: it does nothing any more, and lets go of what it has. */
bool task_is_exiting(const struct task_stat *s);

enum task_caps {
    TASK_CAP_INH,
    TASK_CAP_PRM,
    TASK_CAP_EFF,
    TASK_CAP_BND,
    TASK_CAP_AMB,
    TASK_CAP_COUNT_
};

struct task_status {
    char name[TASK_NAME_MAX];
    char state;
    pid_t pid, tgid, ppid;
    pid_t tracer;     /* 0 = not traced */
    uint64_t pending; /* signals of the first thread: bit n - 1 for signal n */
    uid_t uid[4];     /* real, effective, saved, file system */
    gid_t gid[4];
    pid_t ns_pid[TASK_NS_DEPTH_MAX]; /* outermost (that of the proc file system) first */
    size_t n_ns_pid;                 /* 0 on a kernel that does not tell */
    pid_t inner_sid; /* session in the innermost namespace; 0: its leader is outside */
    bool has_inner_sid;
    uint64_t caps[TASK_CAP_COUNT_];
    bool no_new_privs, kernel_thread;
    unsigned seccomp;         /* 0 none, 1 strict, 2 filter */
    unsigned seccomp_filters; /* 0 also when the kernel does not tell */
    unsigned threads;
    uint64_t rss_bytes, locked_bytes, pinned_bytes, hugetlb_bytes;
};

/* A field that is missing is 0; at least Name, State and Pid must be there.
 * errors  RC_CORRUPT */
enum rc task_status_parse(const char *text, size_t len, struct task_status *out, struct err *err);
/* errors  RC_NOT_FOUND, RC_CORRUPT */
enum rc task_status_read(int task, struct task_status *out, struct err *err);

/* The task's PID as it knows it itself. */
pid_t task_inner_pid(const struct task_status *s);

/* `root` and all its descendants, each after its parent; processes that end meanwhile are left out.
 * out     the caller's (free); *out_n at least 1
 * errors  RC_NOT_FOUND, RC_TOO_BIG (over 65536 processes on the machine), RC_IO */
enum rc task_tree(int proc, pid_t root, struct task_stat **out, size_t *out_n, struct err *err);

/* The thread ids of a task, ascending.  out: the caller's (free). */
enum rc task_threads(int task, pid_t **out, size_t *out_n, struct err *err);

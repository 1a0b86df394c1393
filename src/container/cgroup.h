/* Control groups: which a process is in, and putting a process beside another.
 *
 * A process is in one group per hierarchy: one for v2, and one for each v1 hierarchy where a
 * machine still has those ("hybrid").  Threads: a list belongs to one thread.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define CGROUP_MAX 256 /* hierarchies; more are RC_TOO_BIG */

struct cgroup {
    unsigned hierarchy; /* 0 = v2 */
    char *controllers;  /* "cpu,cpuacct", "name=systemd"; "" for v2 */
    char *path;         /* as the reader's cgroup namespace has it; "/.." outside of it */
};

struct cgroups {
    struct cgroup *list;
    size_t n;
};

/* The text of /proc/<pid>/cgroup.  errors  RC_CORRUPT, RC_TOO_BIG */
enum rc cgroups_parse(const char *text, size_t len, struct cgroups *out, struct err *err);
/* Of an open task (container/task.h).  errors  RC_NOT_FOUND, RC_CORRUPT, RC_TOO_BIG */
enum rc cgroups_read(int task, struct cgroups *out, struct err *err);
void cgroups_done(struct cgroups *c); /* for CLEANUP() */

/* The v2 group, or NULL. */
const struct cgroup *cgroups_v2(const struct cgroups *c);
/* The group of a v1 controller ("freezer"), or NULL. */
const struct cgroup *cgroups_v1(const struct cgroups *c, const char *controller);

/* Open the directory of a group, through the mounts of our own mount namespace.
 * self    our own open task: whose mountinfo says where hierarchies are mounted
 * out     the caller's (close)
 * errors  RC_NOT_FOUND (not mounted, or outside of what is mounted), RC_DENIED */
enum rc cgroup_open(int self, const struct cgroup *g, int *out, struct err *err);

/* Put process `pid` (as our PID namespace knows it) into every group that the open task `like` is
 * in.  Groups that it is in already, and hierarchies that are not mounted here, are left alone.
 * errors  RC_DENIED, RC_NOT_FOUND (no such process), RC_INVALID (a group with inner processes
 *         forbidden, or a domain mismatch), RC_IO; some hierarchies may have been changed by then
 */
enum rc cgroup_join(int self, pid_t pid, int like, struct err *err);

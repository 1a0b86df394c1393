/* How much of the machine a restored process may ask for, and how much of it it has.
 *
 * CRIU sets limits, priorities and the like as root, from images; without that a process could only
 * have what its container's first process may hand on.  All is asked of the kernel.  Threads: safe.
 */
#pragma once

#include "base/err.h"
#include "container/task.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#define BOUNDS_UNLIMITED UINT64_MAX

/* The hard limits of a process, by RLIMIT_*. */
struct bounds_limits {
    uint64_t hard[RLIM_NLIMITS];
};

/* The text of /proc/<pid>/limits.  errors  RC_CORRUPT (one is missing, or makes no sense) */
enum rc bounds_parse_limits(const char *text, size_t len, struct bounds_limits *out,
                            struct err *err);

/* How a thread is scheduled. */
struct bounds_schedule {
    int nice;        /* -20..19 */
    unsigned policy; /* SCHED_* */
    unsigned real_time_priority;
};

/* The text of /proc/<pid>/task/<tid>/stat.  errors  RC_CORRUPT */
enum rc bounds_parse_schedule(const char *text, size_t len, struct bounds_schedule *out,
                              struct err *err);

/* What a container's first process has, and what it may do about it. */
struct bounds {
    struct bounds_limits limits;
    struct bounds_schedule schedule;
    int oom_score_adj;
    uint64_t caps; /* permitted */
};

/* Of an open task.  errors  RC_NOT_FOUND, RC_CORRUPT, RC_IO */
enum rc bounds_read(int task, const struct task_status *status, struct bounds *out,
                    struct err *err);

/* Whether such limits, or such a schedule, may be where `limit` is.  errors  RC_DENIED */
enum rc bounds_check_limits(const struct bounds *limit, const struct bounds_limits *has,
                            struct err *err);
enum rc bounds_check_schedule(const struct bounds *limit, const struct bounds_schedule *has,
                              struct err *err);

/* Of a process and its threads; a process that the kernel would sooner spare than the container
 * when memory runs out is made equal to that, and can then not be made more precious by itself.
 * errors  RC_DENIED (what it has), RC_NOT_FOUND, RC_CORRUPT, RC_IO */
enum rc bounds_check(const struct bounds *limit, int task, struct err *err);

/* May a restored process have what it has open: files, sockets, mappings, its directories?
 *
 * Whatever is not known to be harmless is refused.  A file must be on a mount of the container's
 * and one that its first process could open (engine/reach.h), under its name, if it has one.
 * Threads: safe.
 */
#pragma once

#include "base/err.h"
#include "container/fdinfo.h"
#include "container/mounts.h"
#include "container/task.h"
#include "engine/reach.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What it may; borrowed. */
struct audit_files {
    const struct mounts *mounts; /* the tree's */
    int root;                    /* its root directory, O_PATH */
    const struct reach *reach;
    uint64_t caps;                /* of the container's first process */
    unsigned lowest_port;         /* that everybody may bind in its network */
    const struct task_stat *tree; /* all that were restored */
    size_t n_tree;
    dev_t memory; /* where the kernel keeps shared memory */
};

/* The last one.  errors  RC_IO */
enum rc audit_memory_dev(dev_t *out, struct err *err);

/* task, pid  of the process, stopped
 * errors     RC_DENIED (what it has that it may not), RC_NOT_FOUND, RC_CORRUPT, RC_IO */
enum rc audit_files(const struct audit_files *a, int task, pid_t pid, struct err *err);

/* Of descriptors that are no files: whether it may have this one. */
enum rc audit_descriptor(const struct audit_files *a, const struct fdinfo *f, struct err *err);

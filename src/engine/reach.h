/* Which files a container's first process could open by itself.
 *
 * CRIU opens files as root, so that a link which the container has prepared, or a path in a made-up
 * image, leads to what the container may not read.  Whether it may is asked of the kernel, by a
 * thread that has the process's user, groups and capabilities for that moment.
 * Threads: safe.
 */
#pragma once

#include "base/err.h"
#include "container/task.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct reach {
    uid_t uid;
    gid_t gid;
    gid_t *groups;
    size_t n_groups;
    uint64_t caps;
};

/* groups  the line "Groups" of its /proc/<pid>/status: numbers
 * out     the caller's, reach_done()
 * errors  RC_CORRUPT */
enum rc reach_make(const struct task_status *who, const char *groups, struct reach *out,
                   struct err *err);
void reach_done(struct reach *r); /* for CLEANUP() */

/* Whether it could open this.
 * file    a descriptor (O_PATH)
 * how     R_OK, W_OK, X_OK; 0: it is enough to find it
 * root    where `path` begins: a directory (O_PATH); -1: it has no name that leads to it
 * path    must lead to the same file
 * errors  RC_DENIED (it could not, or the name leads elsewhere), RC_IO */
enum rc reach_file(const struct reach *r, int file, int how, int root, const char *path,
                   struct err *err);

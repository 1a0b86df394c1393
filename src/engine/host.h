/* Facts about this machine: recorded in a checkpoint, compared before a restore.  Threads: safe. */
#pragma once

#include "base/err.h"
#include "store/metadata.h"

/* /dev/shm of the tree, in the checkpoint directory. */
#define HOST_SHM_ARCHIVE "tmpfs-dev-shm.tar"

/* Fill in: created_at, source_node, versions, kernel, architecture, CPU. */
void host_describe(struct metadata *m);

/* Whether a tree from there can run here.
 * errors  RC_UNSUPPORTED: which fact stands against it, and what to do */
enum rc host_accepts(const struct metadata *m, struct err *err);

/* What need not, but may stand against it, for people: an older kernel, which may lack what the
 * tree uses.  The caller's (free); NULL = nothing. */
char *host_doubt(const struct metadata *m);

/* A private directory on a local disk, for the files of checkpoints on their way to and from a
 * remote store.  It is locked while its owner lives; those of the dead are removed by the next.
 * Threads: safe. */
#pragma once

#include "base/err.h"

struct spool {
    int dir;
    char *path;
};

/* base    where it shall be, NULL = /var/tmp, which is a disk everywhere and bounds no memory
 * out     the caller's, spool_done() removes the directory
 * errors  RC_NOT_FOUND (no base), RC_DENIED, RC_NO_SPACE, RC_IO */
enum rc spool_open(const char *base, struct spool *out, struct err *err);
void spool_done(struct spool *s);

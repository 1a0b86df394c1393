/* The changes of a container's root file system, captured with its processes.
 * Threads: safe. */
#pragma once

#include "base/err.h"
#include "store/metadata.h"

#include <sys/types.h>

/* If the root file system of `pid` is an overlay of its own, write its changes into the
 * checkpoint's directory and note them in the metadata.  A process on our own root file system, or
 * on one that is no overlay but shared with the host (a box), has none. errors  RC_UNSUPPORTED (a
 * container on another kind of root file system: which), RC_NO_SPACE, RC_IO */
enum rc root_changes_save(pid_t pid, int ckptfd, struct metadata *m, struct err *err);

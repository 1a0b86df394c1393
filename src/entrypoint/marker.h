/* What tells others that a tree was restored: the restore marker of the contract, whose path
 * DYN_RESTORE_MARKER_FILE names, and /tmp/restored.pid.  Threads: the program's main thread only.
 */
#pragma once

#include "base/err.h"
#include "entrypoint/settings.h"

#include <sys/types.h>

/* The marker, before CRIU restores, so that the program sees it at its next look.  Where nobody has
 * named a path, one that cannot be written is warned of and no failure.
 * errors  RC_DENIED, RC_NOT_FOUND, RC_NO_SPACE, RC_IO */
enum rc marker_write(const struct settings *s, struct err *err);

/* Which process was restored, for those who look there. */
void marker_write_pid(pid_t pid);

/* Both: for whoever starts cold, they would be lies. */
void marker_remove(const struct settings *s);

/* The mounts of this container as CRIU's external resources. */
#pragma once

#include "base/err.h"

struct store_entry;

/* `mnt[/path]:/path` for the root, every mount point of ours, and the masked and read-only paths
 * that containers usually have; only for checkpoints whose mount namespace CRIU has dumped: ours
 * need none.
 * out     NULL-terminated, the caller's (mounts_freep); NULL when none are needed */
enum rc mounts_external(const struct store_entry *entry, char ***out, struct err *err);
void mounts_freep(char ***list);

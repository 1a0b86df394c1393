/* CRIU's log of a restore, brought to where the contract lets people look for it.
 * Threads: the program's main thread only. */
#pragma once

#include "entrypoint/settings.h"

#include <stdbool.h>

struct store_entry;

/* Remove that of an earlier attempt, which would be taken for this one's. */
void criu_log_forget(const struct settings *s);

/* Copy it to /tmp/criu-restore.log and, where that can be written and holds no secrets, into the
 * checkpoint.  Of a failed restore show it, too: all of it, or the end of a very long one.  No log:
 * nothing to do. */
void criu_log_show(const struct settings *s, const struct store_entry *entry, bool failed);

/* How much memory there is still for a process: what the machine has free, and
 * what the limits of its control groups, also those above, leave.  Threads:
 * safe. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* MemAvailable: what can be had without swapping; 0 if that cannot be told. */
uint64_t room_machine(void);

/* out     bytes; UINT64_MAX at most
 * errors  RC_NOT_FOUND (no such process; or its groups are not to be seen from
 * here), RC_DENIED, RC_CORRUPT, RC_IO */
enum rc room_of(pid_t pid, uint64_t *out, struct err *err);

/* What the limit of one group, and of those above it, leave.
 * dir     the group's directory, borrowed
 * v2      which names its files have */
enum rc room_of_group(int dir, bool v2, uint64_t *out, struct err *err);

/* What GPUs there are, from the driver's management library, found at run time.
 * Threads: one at a time. */
#pragma once

#include "base/err.h"
#include "gpu/facts.h"

/* Ask libnvidia-ml.so.1: driver, UUIDs, names, memory, MIG.  Takes milliseconds and leaves no
 * device open.
 * out     members of others (cuda, can_*) stay as they are
 * errors  RC_NOT_FOUND (no library), RC_UNSUPPORTED (it refuses: its own words) */
enum rc nvml_inventory(struct gpu_facts *out, struct err *err);

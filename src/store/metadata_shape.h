/* What kind of value each member of metadata.json has: one of another kind is damage, not absence.
 * Threads: safe. */
#pragma once

#include "base/err.h"

#include <yyjson.h>

/* Members that are absent, null or not known are fine.
 * errors  RC_CORRUPT: which member, and what it should be */
enum rc metadata_shape_check(yyjson_val *root, struct err *err);

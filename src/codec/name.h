/* Names that come from outside and become file names.  Threads: safe. */
#pragma once

#include "base/err.h"

#include <stdbool.h>

/* Whether `id` may name a checkpoint: 1..255 bytes, no `/` or `\`, no `..`, no leading dot or dash,
 * no control character, and none of the store's own names. */
bool name_is_id(const char *id);

/* The same as an error with the reason.  errors RC_INVALID */
enum rc name_check_id(const char *id, struct err *err);

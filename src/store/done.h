/* checkpoint.done and the signal file: "the attempt is over", as JSON.  Threads: safe. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>

#define DONE_NAME "checkpoint.done"
#define DONE_MAX ((size_t)1 << 16) /* bytes of a marker that is read */

struct done {
    const char *checkpoint_id;
    const char *checkpoint_path; /* empty on failure */
    bool success;
    const char *error; /* NULL or empty: left out */
};

/* Text of a marker, with the present time. */
void done_format(const struct done *d, struct buf *out);

/* Whether a marker says that its checkpoint is good.
 * errors  RC_CORRUPT: not JSON, `success` missing or not a boolean; RC_INVALID: `success` is false
 *         (the message carries the marker's own error) */
enum rc done_check(const char *text, size_t len, struct err *err);

/* An error for people in two lines: what went wrong, and what to do about it.
 *
 * Messages say the remedy themselves where it is known: behind their last `; `.  For the others the
 * code decides.  Threads: safe. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>

/* Append both; `hint` stays empty when there is nothing sensible to do.
 * command  of chrek, for pointing to its help; NULL = none
 * as_root  whether we run as root */
void advice_of(const struct err *err, const char *command, bool as_root, struct buf *problem,
               struct buf *hint);

/* What CRIU's log says, for people: the first real error, what it means, what to do about it.
 * Log text is outside bytes: it may hold anything.  Threads: safe. */
#pragma once

#include "base/err.h"

#include <stddef.h>

struct cr_explanation {
    char line[256];      /* the error line, without time stamp and source position; "" = none */
    const char *meaning; /* NULL = not one that we know */
    const char *remedy;  /* NULL likewise */
    enum rc rc;          /* RC_IO when not known */
};

void cr_explain(const char *log, size_t len, struct cr_explanation *out);

/* Turn a failure of CRIU into a message that helps, from its log file.
 * name     of the log; of one over 64 MiB its end is read
 * rc       of the failed call, with *err filled; one that is not CRIU's own (a hook's, a deadline)
 *          is returned as it is
 * returns  the explanation's code, with *err saying line, meaning and remedy */
enum rc cr_explain_file(int dirfd, const char *name, enum rc rc, struct err *err);

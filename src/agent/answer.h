/* What every worker's answer begins with: a code, and of a failure its reason.  Threads: safe. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <yyjson.h>

/* A document with an object that says so, for more members; the caller's, json_mut_docp().
 * err  borrowed until it is written; of RC_OK not looked at */
yyjson_mut_doc *answer_new(enum rc rc, const struct err *err);

/* Read it.
 * doc     the caller's, json_docp(); also where the answer is that the worker has failed
 * errors  what the worker says; RC_CORRUPT (no answer: doc is NULL) */
enum rc answer_parse(const struct buf *text, yyjson_doc **doc, struct err *err);

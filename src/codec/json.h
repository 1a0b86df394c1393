/* Small helpers over yyjson: documents from outside, with limits and precise errors.
 * Threads: a document belongs to one thread. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <yyjson.h>

/* Parse a whole document whose root is an object.
 * what    names it in errors ("metadata.json")
 * out     the caller's, yyjson_doc_free()
 * errors  RC_CORRUPT with the position */
enum rc json_parse(const char *what, const char *text, size_t len, yyjson_doc **out,
                   struct err *err);

/* A member's value, or the fallback when it is absent or of another type. */
const char *json_str(yyjson_val *obj, const char *key, const char *fallback);
uint64_t json_u64(yyjson_val *obj, const char *key, uint64_t fallback);
bool json_bool(yyjson_val *obj, const char *key, bool fallback);

/* Write with two-space indentation and no newline at the end, as the checkpoint directory's files
 * have it.  Bytes of strings that are no UTF-8 become U+FFFD. */
void json_write(yyjson_mut_doc *doc, struct buf *out);

/* For CLEANUP(). */
void json_docp(yyjson_doc **doc);
void json_mut_docp(yyjson_mut_doc **doc);

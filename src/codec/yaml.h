/* YAML 1.1 from outside, as JSON: for files that people write.
 *
 * Of scalars, plain ones become null, true, false and numbers as YAML's core schema has them; all
 * others are strings.  Aliases are copied; keys must be scalars.  Threads: safe.
 */
#pragma once

#include "base/err.h"
#include "codec/json.h"

#define YAML_NODES_MAX 100000 /* after aliases are copied: more are RC_TOO_BIG */

/* The first document.  JSON is YAML, too.
 * what    names it in errors
 * out     the caller's, json_docp()
 * errors  RC_CORRUPT (the line), RC_TOO_BIG */
enum rc yaml_parse(const char *what, const char *text, size_t len, yyjson_doc **out,
                   struct err *err);

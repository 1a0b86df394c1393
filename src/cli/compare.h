/* Differences between two JSON values, as paths.
 *
 * Members of objects are matched by name, elements of arrays of objects by their `pid`, `fd`,
 * `start` or `name`; other arrays are compared as a whole.  Threads: safe. */
#pragma once

#include "codec/json.h"

/* Called for each difference; a or b is NULL where that side has nothing.
 * path  "processes[pid=301].threads", borrowed */
typedef void (*compare_found_fn)(void *arg, const char *path, yyjson_val *a, yyjson_val *b);

/* skip  NULL-terminated list of paths that are not looked at; NULL = none */
void compare_values(yyjson_val *a, yyjson_val *b, const char *const *skip, compare_found_fn found,
                    void *arg);

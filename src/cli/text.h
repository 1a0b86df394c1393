/* Text from outside (paths, command lines, other programs' names) on its way to people and JSON.
 * Threads: safe. */
#pragma once

#include "base/buf.h"
#include "codec/json.h"

/* Append text for a terminal: control characters become `?`. */
void text_plain(struct buf *out, const char *text);
/* Append a list of words, separated by blanks, as text_plain(); cut to `max` bytes with `...`. */
void text_words(struct buf *out, char *const *words, size_t max);
/* Members of a JSON object, copied; NULL text adds null. */
void text_json(yyjson_mut_doc *doc, yyjson_mut_val *object, const char *key, const char *text);
/* A NULL-terminated list; NULL adds an empty array. */
void text_json_list(yyjson_mut_doc *doc, yyjson_mut_val *object, const char *key,
                    char *const *words);

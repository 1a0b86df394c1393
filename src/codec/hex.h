/* Bytes as hexadecimal digits.  Threads: safe. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* out: 2 * len + 1 characters, lower case, with a NUL */
void hex_format(const void *data, size_t len, char *out);
/* Exactly 2 * len digits of either case; false: `out` may be partly set. */
bool hex_parse(const char *text, size_t text_len, void *out, size_t len);

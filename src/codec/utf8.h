/* Bytes from outside as valid UTF-8 (RFC 3629).  Threads: safe. */
#pragma once

#include "base/buf.h"

#include <stddef.h>

/* Bytes of the character at `text`, 0 when there is none.  len: at least 1 */
size_t utf8_len(const char *text, size_t len);

/* Append text; each byte that belongs to no character becomes U+FFFD. */
void utf8_add(struct buf *out, const char *text, size_t len);

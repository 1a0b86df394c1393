/* Base64 (RFC 4648), the usual alphabet and the one for URLs.  Threads: safe. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>

/* Append, with padding. */
void base64_format(const void *data, size_t len, struct buf *out);

/* Append what the text says; either alphabet, with or without padding, no blanks.
 * out     as before unless RC_OK
 * errors  RC_INVALID, RC_TOO_BIG (the buffer's limit) */
enum rc base64_parse(const char *text, size_t len, struct buf *out, struct err *err);

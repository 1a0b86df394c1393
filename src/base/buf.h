/* Bytes that grow, up to a limit.
 *
 * Past the limit a buffer stops taking bytes and stays `overflowed`, so a long sequence of
 * additions is checked once, at its end.  data is always NUL-terminated once anything was added.
 * Threads: a buffer belongs to one thread.
 */
#pragma once

#include "base/compiler.h"

#include <stdbool.h>
#include <stddef.h>

#define BUF_DEFAULT_MAX ((size_t)64 << 20)

struct buf {
    char *data; /* NULL while empty */
    size_t len; /* bytes, without the terminating NUL */
    size_t cap;
    size_t max; /* 0 = BUF_DEFAULT_MAX */
    bool overflowed;
};

#define BUF_INIT                                                                                   \
    {                                                                                              \
        .data = NULL                                                                               \
    }

void buf_add(struct buf *b, const void *data, size_t len);
void buf_adds(struct buf *b, const char *text);
void buf_addf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Room for `len` more bytes at the end; NULL past the limit.  Follow with buf_grew(). */
void *buf_room(struct buf *b, size_t len);
void buf_grew(struct buf *b, size_t len);
/* Drop what is behind the first `len` bytes, as if it had never been added. len: at most b->len */
void buf_cut(struct buf *b, size_t len);
/* The limit, never 0. */
size_t buf_max(const struct buf *b);
/* The content as a string, "" when empty; borrowed. */
const char *buf_str(const struct buf *b);
/* Give the content away as a string; the caller's (free).  The buffer is empty afterwards and
 * takes bytes again; whether it had overflowed is to be asked before. */
char *buf_steal(struct buf *b);
/* For CLEANUP(): frees the content. */
void buf_done(struct buf *b);

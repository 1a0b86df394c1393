#include "base/buf.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t buf_max(const struct buf *b)
{
    return b->max ? b->max : BUF_DEFAULT_MAX;
}

void *buf_room(struct buf *b, size_t len)
{
    size_t max = buf_max(b);
    if (b->overflowed || b->len > max || len > max - b->len) {
        b->overflowed = true;
        return NULL;
    }
    size_t need = b->len + len + 1;
    if (need > b->cap) {
        size_t cap = b->cap * 2 > need ? b->cap * 2 : need;
        cap = cap < 64 ? 64 : cap;
        b->data = mem_realloc(b->data, cap);
        b->cap = cap;
    }
    return b->data + b->len;
}

void buf_grew(struct buf *b, size_t len)
{
    b->len += len;
    b->data[b->len] = '\0';
}

void buf_add(struct buf *b, const void *data, size_t len)
{
    void *to = buf_room(b, len);
    if (!to)
        return;
    if (len)
        memcpy(to, data, len);
    buf_grew(b, len);
}

void buf_adds(struct buf *b, const char *text)
{
    buf_add(b, text, strlen(text));
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *to = n >= 0 ? buf_room(b, (size_t)n) : NULL;
    if (to) {
        (void)vsnprintf(to, (size_t)n + 1, fmt, again);
        buf_grew(b, (size_t)n);
    }
    va_end(again);
}

void buf_cut(struct buf *b, size_t len)
{
    b->len = len;
    if (b->data)
        b->data[len] = '\0';
    b->overflowed = false;
}

const char *buf_str(const struct buf *b)
{
    return b->data ? b->data : "";
}

char *buf_steal(struct buf *b)
{
    char *text = b->data ? STEAL(b->data) : mem_strdup("");
    b->len = b->cap = 0;
    b->overflowed = false;
    return text;
}

void buf_done(struct buf *b)
{
    free(b->data);
    *b = (struct buf){.max = b->max};
}

/* Protocol buffers read field by field, in place, without allocating: for documents from outside of
 * which we want a few fields.  Nothing is read outside the given bytes.
 * Threads: a reader belongs to one thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wire {
    const uint8_t *at, *end;
};

struct wire_field {
    uint32_t number;
    bool is_bytes;       /* a string, bytes, or a message: data and len; otherwise value */
    uint64_t value;      /* of a number; sint values are not decoded */
    const uint8_t *data; /* borrowed from the message */
    size_t len;
};

/* A reader of the bytes, or of a message inside another. */
struct wire wire_of(const void *data, size_t len);
/* The next field: 1, the end: 0, bytes that are no message: -1. */
int wire_next(struct wire *w, struct wire_field *out);
/* A field's numbers, of a repeated field that may be packed: calls for each. Returns false if it is
 * broken. */
bool wire_numbers(const struct wire_field *f, void (*each)(void *arg, uint64_t value), void *arg);

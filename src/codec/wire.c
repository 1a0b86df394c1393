#include "codec/wire.h"

enum kind { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

struct wire wire_of(const void *data, size_t len)
{
    return (struct wire){.at = data, .end = len ? (const uint8_t *)data + len : data};
}

static bool varint(struct wire *w, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && w->at < w->end; shift += 7) {
        uint8_t byte = *w->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *out = value;
            return true;
        }
    }
    return false;
}

static bool fixed(struct wire *w, size_t n, uint64_t *out)
{
    uint64_t value = 0;
    if ((size_t)(w->end - w->at) < n)
        return false;
    for (size_t i = n; i-- > 0;)
        value = value << 8 | w->at[i];
    w->at += n;
    *out = value;
    return true;
}

static bool bytes(struct wire *w, struct wire_field *f)
{
    uint64_t len;
    if (!varint(w, &len) || len > (uint64_t)(w->end - w->at))
        return false;
    f->is_bytes = true;
    f->data = w->at;
    f->len = (size_t)len;
    w->at += len;
    return true;
}

int wire_next(struct wire *w, struct wire_field *out)
{
    struct wire_field f = {0};
    uint64_t tag;
    bool ok = false;
    if (w->at == w->end)
        return 0;
    if (!varint(w, &tag) || tag >> 3 == 0 || tag >> 3 > UINT32_MAX >> 3)
        return -1;
    f.number = (uint32_t)(tag >> 3);
    if ((tag & 7) == VARINT)
        ok = varint(w, &f.value);
    else if ((tag & 7) == FIXED64)
        ok = fixed(w, 8, &f.value);
    else if ((tag & 7) == BYTES)
        ok = bytes(w, &f);
    else if ((tag & 7) == FIXED32)
        ok = fixed(w, 4, &f.value);
    if (!ok)
        return -1;
    *out = f;
    return 1;
}

bool wire_numbers(const struct wire_field *f, void (*each)(void *arg, uint64_t value), void *arg)
{
    if (!f->is_bytes) {
        each(arg, f->value);
        return true;
    }
    struct wire w = wire_of(f->data, f->len);
    while (w.at < w.end) {
        uint64_t value;
        if (!varint(&w, &value))
            return false;
        each(arg, value);
    }
    return true;
}

#include "codec/utf8.h"

#include "base/compiler.h"

size_t utf8_len(const char *text, size_t len)
{
    static const struct {
        unsigned char from, to, low, high, len; /* low, high: of the second byte */
    } forms[] = {
        {0x00, 0x7f, 0x00, 0x00, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
    const unsigned char *p = (const unsigned char *)text;
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        if (p[0] < forms[i].from || p[0] > forms[i].to)
            continue;
        if (forms[i].len > len)
            return 0;
        if (forms[i].len > 1 && (p[1] < forms[i].low || p[1] > forms[i].high))
            return 0;
        for (size_t j = 2; j < forms[i].len; j++)
            if ((p[j] & 0xc0) != 0x80)
                return 0;
        return forms[i].len;
    }
    return 0;
}

void utf8_add(struct buf *out, const char *text, size_t len)
{
    const char *from = text, *end = text + len;
    while (text < end) {
        size_t n = utf8_len(text, (size_t)(end - text));
        if (!n) {
            buf_add(out, from, (size_t)(text - from));
            buf_adds(out, "\xef\xbf\xbd");
            from = text + 1;
        }
        text += n ? n : 1;
    }
    buf_add(out, from, (size_t)(end - from));
}

#include "codec/base64.h"

#include <stdint.h>

void base64_format(const void *data, size_t len, struct buf *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = data;
    for (size_t i = 0; i < len; i += 3) {
        size_t n = len - i < 3 ? len - i : 3;
        uint32_t v = (uint32_t)p[i] << 16;
        v |= n > 1 ? (uint32_t)p[i + 1] << 8 : 0;
        v |= n > 2 ? (uint32_t)p[i + 2] : 0;
        char quad[4] = {digits[v >> 18], digits[v >> 12 & 63], digits[v >> 6 & 63], digits[v & 63]};
        for (size_t k = n + 1; k < 4; k++)
            quad[k] = '=';
        buf_add(out, quad, 4);
    }
}

static int value_of(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+' || c == '-')
        return 62;
    return c == '/' || c == '_' ? 63 : -1;
}

enum rc base64_parse(const char *text, size_t len, struct buf *out, struct err *err)
{
    size_t before = out->len;
    uint32_t bits = 0;
    unsigned have = 0;
    if (len % 4 == 0 && len > 0)
        len -= text[len - 1] == '=' ? (text[len - 2] == '=' ? 2U : 1U) : 0U;
    for (size_t i = 0; i < len; i++) {
        int v = value_of(text[i]);
        if (v < 0 || (len % 4 == 1 && i == len - 1)) {
            buf_cut(out, before);
            return err_set(err, RC_INVALID, "no base64 from character %zu on", i + 1);
        }
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have >= 8) {
            char byte = (char)(bits >> (have - 8) & 255);
            buf_add(out, &byte, 1);
            have -= 8;
        }
    }
    if (out->overflowed) {
        buf_cut(out, before);
        return err_set(err, RC_TOO_BIG, "base64 of more than %zu bytes", buf_max(out));
    }
    return RC_OK;
}

#include "container/scan.h"

#include "base/mem.h"

#include <string.h>

struct scan scan_of(const char *text, size_t len)
{
    static const char nothing[] = "";
    const char *at = text ? text : nothing;
    return (struct scan){at, at + (text ? len : 0)};
}

size_t scan_len(struct scan s)
{
    return (size_t)(s.end - s.at);
}

bool scan_until(struct scan *s, char sep, struct scan *out)
{
    if (s->at == s->end)
        return false;
    const char *stop = memchr(s->at, sep, scan_len(*s));
    *out = (struct scan){s->at, stop ? stop : s->end};
    s->at = stop ? stop + 1 : s->end;
    return true;
}

bool scan_line(struct scan *s, struct scan *out)
{
    return scan_until(s, '\n', out);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

bool scan_word(struct scan *s, struct scan *out)
{
    const char *at = s->at;
    while (at < s->end && is_blank(*at))
        at++;
    if (at == s->end)
        return false;
    const char *stop = at;
    while (stop < s->end && !is_blank(*stop))
        stop++;
    *out = (struct scan){at, stop};
    s->at = stop;
    return true;
}

static unsigned digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    if (c >= 'a' && c <= 'f')
        return (unsigned)(c - 'a') + 10;
    if (c >= 'A' && c <= 'F')
        return (unsigned)(c - 'A') + 10;
    return 16;
}

bool scan_u64(struct scan s, unsigned base, uint64_t *out)
{
    uint64_t value = 0;
    if (s.at == s.end)
        return false;
    for (const char *p = s.at; p < s.end; p++) {
        unsigned digit = digit_of(*p);
        if (digit >= base || __builtin_mul_overflow(value, (uint64_t)base, &value) ||
            __builtin_add_overflow(value, (uint64_t)digit, &value))
            return false;
    }
    *out = value;
    return true;
}

bool scan_i64(struct scan s, int64_t min, int64_t max, int64_t *out)
{
    uint64_t size = 0;
    bool negative = s.at < s.end && *s.at == '-';
    s.at += negative;
    if (!scan_u64(s, 10, &size) || size > INT64_MAX)
        return false;
    int64_t value = negative ? -(int64_t)size : (int64_t)size;
    if (value < min || value > max)
        return false;
    *out = value;
    return true;
}

bool scan_starts(struct scan s, const char *text)
{
    size_t n = strlen(text);
    return scan_len(s) >= n && memcmp(s.at, text, n) == 0;
}

bool scan_ends(struct scan s, const char *text)
{
    size_t n = strlen(text);
    return scan_len(s) >= n && memcmp(s.end - n, text, n) == 0;
}

bool scan_is(struct scan s, const char *text)
{
    return scan_len(s) == strlen(text) && scan_starts(s, text);
}

void scan_copy(struct scan s, char *out, size_t cap)
{
    size_t n = scan_len(s) < cap - 1 ? scan_len(s) : cap - 1;
    memcpy(out, s.at, n);
    out[n] = '\0';
}

char *scan_dup(struct scan s)
{
    char *copy = mem_alloc(scan_len(s) + 1);
    scan_copy(s, copy, scan_len(s) + 1);
    return copy;
}

static bool octal_escape(const char *p, const char *end, char *out)
{
    if (end - p < 4 || p[0] != '\\')
        return false;
    unsigned value = 0;
    for (int i = 1; i < 4; i++) {
        if (p[i] < '0' || p[i] > '7')
            return false;
        value = value * 8 + (unsigned)(p[i] - '0');
    }
    *out = (char)(unsigned char)value;
    return value > 0 && value < 256;
}

char *scan_dup_unescaped(struct scan s)
{
    char *copy = mem_alloc(scan_len(s) + 1), *to = copy;
    for (const char *p = s.at; p < s.end; to++) {
        bool escaped = octal_escape(p, s.end, to);
        if (!escaped)
            *to = *p;
        p += escaped ? 4 : 1;
    }
    *to = '\0';
    return copy;
}

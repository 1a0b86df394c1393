#include "base/num.h"

#include "base/compiler.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* Digits at *text, advanced past them; false if there are none or they overflow (UINT64_MAX). */
static bool take_digits(const char **text, uint64_t *out)
{
    const char *p = *text;
    uint64_t v = 0;
    bool over = false;
    for (; *p >= '0' && *p <= '9'; p++)
        over = over || __builtin_mul_overflow(v, 10U, &v) ||
               __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v);
    bool any = p != *text;
    *text = p;
    *out = over ? UINT64_MAX : v;
    return any && !over;
}

enum rc num_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *out, struct err *err)
{
    const char *p = text;
    uint64_t v = 0;
    bool fits = take_digits(&p, &v);
    if (p == text || *p)
        return err_set(err, RC_INVALID, "'%.64s' is no number", text);
    if (!fits || v < min || v > max)
        return err_set(err, RC_INVALID, "%.64s is outside %" PRIu64 " to %" PRIu64, text, min, max);
    *out = v;
    return RC_OK;
}

enum rc num_parse_size(const char *text, uint64_t *out, struct err *err)
{
    static const char units[] = "KMGT";
    const char *p = text;
    uint64_t v = 0;
    bool good = take_digits(&p, &v);
    const char *unit = *p ? strchr(units, *p) : NULL;
    if (unit) {
        good = good && !__builtin_mul_overflow(v, (uint64_t)1 << (10 * (unit - units + 1)), &v);
        p++;
        if (strcmp(p, "iB") == 0)
            p += 2;
    }
    if (!good || *p)
        return err_set(err, RC_INVALID, "'%.64s' is no size (digits with K, M, G or T)", text);
    *out = v;
    return RC_OK;
}

static uint64_t unit_ns(const char *unit)
{
    static const struct {
        const char *name;
        uint64_t ns;
    } units[] = {{"", 1000000000ULL},         {"ms", 1000000ULL},
                 {"s", 1000000000ULL},        {"m", 60 * 1000000000ULL},
                 {"h", 3600 * 1000000000ULL}, {"d", 86400 * 1000000000ULL}};
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (strcmp(unit, units[i].name) == 0)
            return units[i].ns;
    return 0;
}

/* The digits after a point, in ns; false if they are finer than a nanosecond. */
static bool fraction_ns(const char *digits, uint64_t unit, uint64_t *out)
{
    uint64_t ns = 0;
    for (uint64_t place = unit / 10; *digits >= '0' && *digits <= '9'; digits++, place /= 10) {
        if (!place && *digits != '0')
            return false;
        ns += (uint64_t)(*digits - '0') * place;
    }
    *out = ns;
    return true;
}

enum rc num_parse_duration(const char *text, uint64_t *out_ns, struct err *err)
{
    const char *p = text;
    uint64_t whole = 0, ns = 0, part = 0;
    bool good = take_digits(&p, &whole);
    const char *fraction = "";
    if (*p == '.') {
        fraction = ++p;
        p += strspn(p, "0123456789");
        good = good && p != fraction;
    }
    uint64_t unit = unit_ns(p);
    if (!good || !unit || __builtin_mul_overflow(whole, unit, &ns) ||
        !fraction_ns(fraction, unit, &part) || __builtin_add_overflow(ns, part, &ns))
        return err_set(err, RC_INVALID, "'%.64s' is no duration (as in 30s, 250ms, 5m)", text);
    *out_ns = ns;
    return RC_OK;
}

enum rc num_parse_bool(const char *text, bool *out, struct err *err)
{
    static const char *const words[][2] = {
        {"0", "1"}, {"false", "true"}, {"no", "yes"}, {"off", "on"}};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        for (int truth = 0; truth < 2; truth++)
            if (strcasecmp(text, words[i][truth]) == 0) {
                *out = truth;
                return RC_OK;
            }
    return err_set(err, RC_INVALID,
                   "'%.32s' is neither true nor false: want 1, true, yes or on, or "
                   "0, false, no or off",
                   text);
}

#include "cli/compare.h"

#include "base/compiler.h"

#include <string.h>

#define DEPTH_MAX 16

struct compare {
    const char *const *skip;
    compare_found_fn found;
    void *arg;
};

static void values(const struct compare *c, const char *path, yyjson_val *a, yyjson_val *b,
                   unsigned depth);

static bool is_skipped(const struct compare *c, const char *path)
{
    for (const char *const *s = c->skip; s && *s; s++)
        if (strcmp(*s, path) == 0)
            return true;
    return false;
}

static void member(const struct compare *c, const char *path, const char *key, yyjson_val *a,
                   yyjson_val *b, unsigned depth)
{
    CLEANUP(buf_done) struct buf deeper = BUF_INIT;
    buf_addf(&deeper, "%s%s%s", path, *path ? "." : "", key);
    values(c, buf_str(&deeper), a, b, depth + 1);
}

static void objects(const struct compare *c, const char *path, yyjson_val *a, yyjson_val *b,
                    unsigned depth)
{
    size_t i, n;
    yyjson_val *key, *value;
    yyjson_obj_foreach(a, i, n, key, value)
    {
        const char *name = yyjson_get_str(key);
        member(c, path, name, value, yyjson_obj_get(b, name), depth);
    }
    yyjson_obj_foreach(b, i, n, key, value)
    {
        const char *name = yyjson_get_str(key);
        if (!yyjson_obj_get(a, name))
            member(c, path, name, NULL, value, depth);
    }
}

/* What tells an array's elements apart, or NULL. */
static const char *key_of(yyjson_val *array)
{
    static const char *const keys[] = {"pid", "fd", "start", "name"};
    yyjson_val *first = yyjson_arr_get_first(array);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (yyjson_obj_get(first, keys[i]))
            return keys[i];
    return NULL;
}

static yyjson_val *find(yyjson_val *array, const char *key, yyjson_val *id)
{
    size_t i, n;
    yyjson_val *value;
    yyjson_arr_foreach(array, i, n, value)
    {
        yyjson_val *other = yyjson_obj_get(value, key);
        if (other && yyjson_equals(other, id))
            return value;
    }
    return NULL;
}

static void element(const struct compare *c, const char *path, const char *key, yyjson_val *id,
                    yyjson_val *a, yyjson_val *b, unsigned depth)
{
    CLEANUP(buf_done) struct buf deeper = BUF_INIT;
    if (yyjson_is_str(id))
        buf_addf(&deeper, "%s[%s=%s]", path, key, yyjson_get_str(id));
    else
        buf_addf(&deeper, "%s[%s=%llu]", path, key, (unsigned long long)yyjson_get_uint(id));
    values(c, buf_str(&deeper), a, b, depth + 1);
}

static void arrays(const struct compare *c, const char *path, yyjson_val *a, yyjson_val *b,
                   unsigned depth)
{
    const char *key = key_of(yyjson_arr_size(a) ? a : b);
    size_t i, n;
    yyjson_val *value;
    if (!key) {
        if (!yyjson_equals(a, b))
            c->found(c->arg, path, a, b);
        return;
    }
    yyjson_arr_foreach(a, i, n, value)
    {
        yyjson_val *id = yyjson_obj_get(value, key);
        if (id)
            element(c, path, key, id, value, find(b, key, id), depth);
    }
    yyjson_arr_foreach(b, i, n, value)
    {
        yyjson_val *id = yyjson_obj_get(value, key);
        if (id && !find(a, key, id))
            element(c, path, key, id, NULL, value, depth);
    }
}

static void values(const struct compare *c, const char *path, yyjson_val *a, yyjson_val *b,
                   unsigned depth)
{
    if (is_skipped(c, path))
        return;
    if (a && b && depth < DEPTH_MAX && yyjson_is_obj(a) && yyjson_is_obj(b))
        return objects(c, path, a, b, depth);
    if (a && b && depth < DEPTH_MAX && yyjson_is_arr(a) && yyjson_is_arr(b))
        return arrays(c, path, a, b, depth);
    if (!a || !b || !yyjson_equals(a, b))
        c->found(c->arg, path, a, b);
}

void compare_values(yyjson_val *a, yyjson_val *b, const char *const *skip, compare_found_fn found,
                    void *arg)
{
    struct compare c = {.skip = skip, .found = found, .arg = arg};
    values(&c, "", a, b, 0);
}

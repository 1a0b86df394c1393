#include "backend/backend.h"

#include "base/compiler.h"

#include <stdbool.h>
#include <string.h>

#define PACE_BYTES ((size_t)512 << 10) /* of a disk: they stay in a processor's cache */

static bool is_key_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-' || c == '/';
}

enum rc backend_check_key(const char *key, struct err *err)
{
    size_t n = strlen(key), part = 0;
    bool good = n > 0 && n <= BACKEND_KEY_MAX && key[n - 1] != '/';
    for (size_t i = 0; good && i < n; i++) {
        good = is_key_char(key[i]) && !(part == 0 && (key[i] == '.' || key[i] == '/'));
        part = key[i] == '/' ? 0 : part + 1;
        good = good && part <= BACKEND_PART_MAX;
    }
    return good ? RC_OK : err_set(err, RC_INVALID, "'%.64s' is no key of an object", key);
}

struct backend_pace backend_pace(const struct backend *b)
{
    struct backend_pace p = b->ops->pace;
    return (struct backend_pace){p.bytes ? p.bytes : PACE_BYTES, p.reads ? p.reads : 1};
}

static enum rc about(struct err *err, enum rc rc, const char *what, const struct backend *b,
                     const char *key)
{
    return rc ? err_ctx(err, rc, "%s '%s' (%s)", what, key, b->ops->name) : RC_OK;
}

enum rc backend_begin(struct backend *b, const char *key, struct backend_upload **out,
                      struct err *err)
{
    enum rc rc = backend_check_key(key, err);
    if (rc)
        return rc;
    struct backend_upload *u = NULL;
    rc = b->ops->begin(b, key, &u, err);
    if (rc)
        return about(err, rc, "write", b, key);
    u->backend = b;
    memcpy(u->key, key, strlen(key) + 1);
    u->size = 0;
    u->replace = false;
    *out = u;
    return RC_OK;
}

enum rc backend_append(struct backend_upload *u, const void *data, size_t len, struct err *err)
{
    if (len == 0)
        return RC_OK;
    enum rc rc = u->backend->ops->append(u, data, len, err);
    if (!rc)
        u->size += len;
    return about(err, rc, "write", u->backend, u->key);
}

void backend_replaces(struct backend_upload *u)
{
    u->replace = true;
}

enum rc backend_commit(struct backend_upload *u, struct err *err)
{
    return about(err, u->backend->ops->commit(u, err), "write", u->backend, u->key);
}

void backend_abortp(struct backend_upload **u)
{
    if (*u)
        (*u)->backend->ops->abort(*u);
    *u = NULL;
}

enum rc backend_put(struct backend *b, const char *key, const void *data, size_t len,
                    struct err *err)
{
    CLEANUP(backend_abortp) struct backend_upload *u = NULL;
    enum rc rc = backend_begin(b, key, &u, err);
    if (!rc && u)
        rc = backend_append(u, data, len, err);
    return rc || !u ? rc : backend_commit(u, err);
}

enum rc backend_open(struct backend *b, const char *key, struct backend_object **out,
                     struct err *err)
{
    enum rc rc = backend_check_key(key, err);
    if (rc)
        return rc;
    struct backend_object *o = NULL;
    rc = b->ops->open(b, key, &o, err);
    if (rc)
        return about(err, rc, "read", b, key);
    o->backend = b;
    memcpy(o->key, key, strlen(key) + 1);
    *out = o;
    return RC_OK;
}

enum rc backend_stat(struct backend *b, const char *key, struct backend_info *out, struct err *err)
{
    enum rc rc = backend_check_key(key, err);
    return rc ? rc : about(err, b->ops->stat(b, key, out, err), "look at", b, key);
}

enum rc backend_open_known(struct backend *b, const char *key, const struct backend_info *info,
                           struct backend_object **out, struct err *err)
{
    if (!b->ops->open_known)
        return backend_open(b, key, out, err);
    struct backend_object *o = NULL;
    enum rc rc = backend_check_key(key, err);
    if (!rc)
        rc = b->ops->open_known(b, key, info, &o, err);
    if (rc || !o)
        return about(err, rc, "read", b, key);
    o->backend = b;
    memcpy(o->key, key, strlen(key) + 1);
    *out = o;
    return RC_OK;
}

bool backend_forget(struct backend_object *o, uint64_t offset, size_t len)
{
    return o->backend->ops->forget && o->backend->ops->forget(o, offset, len);
}

enum rc backend_read(struct backend_object *o, uint64_t offset, void *data, size_t len,
                     struct err *err)
{
    enum rc rc = RC_OK;
    if (offset > o->size || len > o->size - offset)
        rc = err_set(err, RC_CORRUPT, "it ends before byte %ju", (uintmax_t)(offset + len));
    else if (len > 0)
        rc = o->backend->ops->read(o, offset, data, len, err);
    return about(err, rc, "read", o->backend, o->key);
}

void backend_closep(struct backend_object **o)
{
    if (*o)
        (*o)->backend->ops->close(*o);
    *o = NULL;
}

enum rc backend_list(struct backend *b, const char *prefix, backend_visit *visit, void *arg,
                     struct err *err)
{
    return about(err, b->ops->list(b, prefix, visit, arg, err), "list", b, prefix);
}

enum rc backend_remove(struct backend *b, const char *key, struct err *err)
{
    enum rc rc = backend_check_key(key, err);
    return rc ? rc : about(err, b->ops->remove(b, key, err), "remove", b, key);
}

void backend_before_fork(struct backend *b)
{
    if (b->ops->before_fork)
        b->ops->before_fork(b);
}

void backend_after_fork(struct backend *b)
{
    if (b->ops->after_fork)
        b->ops->after_fork(b);
}

void backend_freep(struct backend **b)
{
    if (*b)
        (*b)->ops->free(*b);
    *b = NULL;
}

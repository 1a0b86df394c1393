#include "backend/remote.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/rand.h"
#include "codec/xml.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROW_AFTER 1000 /* parts, then they double: 10000 parts must do for any object */

struct upload {
    struct remote_upload base;
    char *data; /* of the part that is being gathered */
    size_t len, cap;
    struct pool_group group;
    pthread_mutex_t lock; /* of what follows */
    enum rc failed;
    struct err failure; /* of the first part that failed */
};

struct part {
    struct upload *upload;
    unsigned number;
    char *data;
    size_t len;
};

struct object {
    struct backend_object base;
    char *key; /* the base's is set by our caller */
    struct remote_info info;
    size_t head_len;
    char *head;
    bool shared; /* others read it too, and see to it that nobody reads the same: nothing ahead */
    struct ahead_reader reader;
};

static struct remote *remote_of(struct backend *b)
{
    return (struct remote *)b;
}

/* ---- writing ---- */

enum rc remote_begin(struct backend *b, const char *key, struct backend_upload **out,
                     struct err *err)
{
    struct upload *u = mem_zalloc(sizeof(*u));
    (void)key, (void)err;
    u->base.remote = remote_of(b);
    rand_hex(u->base.token, REMOTE_TOKEN_LEN);
    (void)pthread_mutex_init(&u->lock, NULL);
    *out = &u->base.base;
    return RC_OK;
}

static enum rc failure_of(struct upload *u, struct err *err)
{
    (void)pthread_mutex_lock(&u->lock);
    enum rc rc = u->failed;
    if (rc && err)
        *err = u->failure;
    (void)pthread_mutex_unlock(&u->lock);
    return rc;
}

static void send_part(void *arg)
{
    struct part *p = arg;
    struct upload *u = p->upload;
    struct err err = ERR_INIT;
    char tag[REMOTE_TAG_MAX] = "";
    enum rc rc = failure_of(u, NULL);
    if (!rc)
        rc = u->base.remote->ops->put_part(&u->base, p->number, p->data, p->len, tag, &err);
    (void)pthread_mutex_lock(&u->lock);
    memcpy(u->base.tags[p->number - 1], tag, sizeof(tag));
    if (rc && !u->failed) {
        u->failed = rc;
        u->failure = err;
        atomic_store(&u->base.cancel, true); /* the others need not go on */
    }
    (void)pthread_mutex_unlock(&u->lock);
    free(p->data);
    free(p);
}

/* Hand on what was gathered. */
static enum rc flush(struct upload *u, struct err *err)
{
    struct remote_upload *r = &u->base;
    const struct remote_ops *ops = r->remote->ops;
    enum rc rc = failure_of(u, err);
    if (!rc && !r->id)
        rc = ops->begin(r, err);
    if (!rc && r->n_parts == ops->parts_max)
        rc = err_set(err, RC_TOO_BIG, "more than %u parts", ops->parts_max);
    if (rc)
        return rc;
    (void)pthread_mutex_lock(&u->lock); /* parts under way note their tags */
    r->tags = mem_realloc(r->tags, (r->n_parts + 1) * sizeof(*r->tags));
    r->n_parts++;
    (void)pthread_mutex_unlock(&u->lock);
    struct part *p = mem_zalloc(sizeof(*p));
    *p = (struct part){u, r->n_parts, STEAL(u->data), u->len};
    u->len = u->cap = 0;
    pool_add(r->remote->pool, &u->group, send_part, p);
    return RC_OK;
}

static size_t part_size(const struct remote_upload *u)
{
    return REMOTE_PART << (u->n_parts / GROW_AFTER < 8 ? u->n_parts / GROW_AFTER : 8);
}

enum rc remote_append(struct backend_upload *base, const void *data, size_t len, struct err *err)
{
    struct upload *u = (struct upload *)base;
    const char *p = data;
    while (len > 0) {
        size_t full = part_size(&u->base);
        if (u->len == full) {
            enum rc rc = flush(u, err);
            if (rc)
                return rc;
            continue;
        }
        size_t n = len < full - u->len ? len : full - u->len;
        while (u->cap < u->len + n) {
            u->cap = u->cap ? 2 * u->cap : REMOTE_PART / 64;
            u->cap = u->cap < full ? u->cap : full;
            u->data = mem_realloc(u->data, u->cap);
        }
        memcpy(u->data + u->len, p, n);
        u->len += n;
        p += n;
        len -= n;
    }
    return RC_OK;
}

enum rc remote_commit(struct backend_upload *base, struct err *err)
{
    struct upload *u = (struct upload *)base;
    const struct remote_ops *ops = u->base.remote->ops;
    if (!u->base.id && u->len <= REMOTE_PART)
        return ops->put(&u->base, u->data, u->len, err);
    enum rc rc = u->len > 0 ? flush(u, err) : RC_OK;
    pool_wait(u->base.remote->pool, &u->group);
    if (!rc)
        rc = failure_of(u, err);
    if (!rc)
        rc = ops->finish(&u->base, err);
    if (!rc)
        free(STEAL(u->base.id)); /* nothing is left to abandon */
    return rc;
}

void remote_abort(struct backend_upload *base)
{
    struct upload *u = (struct upload *)base;
    struct remote *r = u->base.remote;
    atomic_store(&u->base.cancel, true);
    pool_wait(r->pool, &u->group);
    if (u->base.id)
        r->ops->abandon(&u->base);
    (void)pthread_mutex_destroy(&u->lock);
    free(u->base.id);
    free(u->base.tags);
    free(u->data);
    free(u);
}

/* ---- reading ---- */

enum rc remote_open(struct backend *b, const char *key, struct backend_object **out,
                    struct err *err)
{
    struct remote *r = remote_of(b);
    CLEANUP(mem_freep) char *head = mem_alloc(REMOTE_HEAD);
    struct remote_info info = {0};
    size_t len = 0;
    enum rc rc = r->ops->look(r, key, head, REMOTE_HEAD, &len, &info, err);
    if (rc)
        return rc;
    struct object *o = mem_zalloc(sizeof(*o));
    *o = (struct object){.key = mem_strdup(key),
                         .info = info,
                         .head_len = len,
                         .head = mem_realloc(STEAL(head), len ? len : 1),
                         .base.size = info.size};
    *out = &o->base;
    return RC_OK;
}

/* A few bytes come with it: HEAD could not say what is wrong.  (For one byte of an empty blob
 * Azurite has an answer of its own.) */
enum rc remote_stat(struct backend *b, const char *key, struct backend_info *out, struct err *err)
{
    struct remote *r = remote_of(b);
    struct remote_info info = {0};
    char some[16];
    size_t len = 0;
    enum rc rc = r->ops->look(r, key, some, sizeof(some), &len, &info, err);
    if (rc)
        return rc;
    out->size = info.size;
    memcpy(out->tag, info.tag, sizeof(out->tag));
    return RC_OK;
}

enum rc remote_open_known(struct backend *b, const char *key, const struct backend_info *info,
                          struct backend_object **out, struct err *err)
{
    if (remote_of(b)->ops->by_tag && !info->tag[0])
        return remote_open(b, key, out, err);
    struct object *o = mem_zalloc(sizeof(*o));
    *o = (struct object){.key = mem_strdup(key),
                         .info = {.size = info->size},
                         .head = mem_alloc(1),
                         .shared = true,
                         .base.size = info->size};
    memcpy(o->info.tag, info->tag, sizeof(o->info.tag));
    *out = &o->base;
    return RC_OK;
}

struct piece {
    struct object *object;
    uint64_t offset;
    void *data;
    size_t len;
    enum rc rc;
    struct err err;
};

static void get_piece(void *arg)
{
    struct piece *p = arg;
    struct remote *r = remote_of(p->object->base.backend);
    p->rc =
        r->ops->get(r, p->object->key, p->object->info.tag, p->offset, p->data, p->len, &p->err);
}

/* A read that is long enough to be worth several connections. */
static enum rc read_split(struct object *o, uint64_t offset, void *data, size_t len,
                          struct err *err)
{
    struct remote *r = remote_of(o->base.backend);
    size_t n = (len + REMOTE_PART - 1) / REMOTE_PART, bad = 0;
    CLEANUP(mem_freep) struct piece *pieces = mem_zalloc(n * sizeof(*pieces));
    struct pool_group group = {0};
    for (size_t i = 0; i < n; i++) {
        size_t at = i * REMOTE_PART;
        pieces[i] = (struct piece){.object = o,
                                   .offset = offset + at,
                                   .data = (char *)data + at,
                                   .len = len - at < REMOTE_PART ? len - at : REMOTE_PART};
        if (i + 1 < n)
            pool_add(r->pool, &group, get_piece, &pieces[i]);
        else
            get_piece(&pieces[i]); /* we are a thread, too */
    }
    pool_wait(r->pool, &group);
    while (bad < n && !pieces[bad].rc)
        bad++;
    if (bad == n)
        return RC_OK;
    if (err)
        *err = pieces[bad].err;
    return pieces[bad].rc;
}

enum rc remote_read(struct backend_object *base, uint64_t offset, void *data, size_t len,
                    struct err *err)
{
    struct object *o = (struct object *)base;
    struct remote *r = remote_of(base->backend);
    if (offset < o->head_len) {
        size_t n = len < o->head_len - offset ? len : o->head_len - (size_t)offset;
        memcpy(data, o->head + offset, n);
        offset += n;
        len -= n;
        data = (char *)data + n;
    }
    if (len == 0)
        return RC_OK;
    if (len >= 2 * REMOTE_PART)
        return read_split(o, offset, data, len, err);
    if (!o->shared && ahead_read(r->ahead, o, &o->reader, base->size, offset, data, len))
        return RC_OK;
    return r->ops->get(r, o->key, o->info.tag, offset, data, len, err);
}

static enum rc fetch_ahead(void *object, uint64_t offset, void *data, size_t len, struct err *err)
{
    const struct object *o = object;
    struct remote *r = remote_of(o->base.backend);
    return r->ops->get(r, o->key, o->info.tag, offset, data, len, err);
}

void remote_close(struct backend_object *base)
{
    struct object *o = (struct object *)base;
    if (base->backend) /* else it never got to its caller */
        ahead_forget(remote_of(base->backend)->ahead, o);
    free(o->head);
    free(o->key);
    free(o);
}

/* ---- listing ---- */

void remote_listed(const struct remote *r, const char *name, uint64_t size, struct buf *listed)
{
    size_t n = strlen(r->prefix);
    if (strncmp(name, r->prefix, n) != 0 || backend_check_key(name + n, NULL) != RC_OK)
        return;
    buf_add(listed, &size, sizeof(size));
    buf_add(listed, name + n, strlen(name + n) + 1);
}

static enum rc visit_page(const struct buf *listed, backend_visit *visit, void *arg,
                          struct err *err)
{
    enum rc rc = RC_OK;
    for (size_t at = 0; !rc && at < listed->len;) {
        uint64_t size;
        const char *key = listed->data + at + sizeof(size);
        memcpy(&size, listed->data + at, sizeof(size));
        rc = visit(arg, key, size, err);
        at += sizeof(size) + strlen(key) + 1;
    }
    return rc;
}

enum rc remote_list(struct backend *b, const char *prefix, backend_visit *visit, void *arg,
                    struct err *err)
{
    struct remote *r = remote_of(b);
    CLEANUP(buf_done) struct buf marker = BUF_INIT;
    CLEANUP(buf_done) struct buf listed = BUF_INIT;
    enum rc rc = RC_OK;
    if (r->ops->sweep && !atomic_exchange(&r->swept, true))
        r->ops->sweep(r);
    do {
        buf_cut(&listed, 0);
        rc = r->ops->list(r, prefix, &marker, &listed, err);
        if (!rc && listed.overflowed)
            rc = err_set(err, RC_TOO_BIG, "a page of the listing is too long");
        if (!rc)
            rc = visit_page(&listed, visit, arg, err);
    } while (!rc && marker.len > 0);
    return rc;
}

enum rc remote_remove(struct backend *b, const char *key, struct err *err)
{
    return remote_of(b)->ops->remove(remote_of(b), key, err);
}

/* ---- life ---- */

enum rc remote_init(struct remote *r, const struct remote_ops *ops, const char *prefix,
                    struct http_client *http, struct err *err)
{
    if (*prefix && backend_check_key(prefix, NULL) != RC_OK)
        return err_set(err, RC_INVALID, "'%.100s' is no prefix of keys", prefix);
    r->base.ops = &ops->backend;
    r->ops = ops;
    r->prefix = *prefix ? mem_asprintf("%s/", prefix) : mem_strdup("");
    r->http = http;
    r->pool = pool_new(REMOTE_THREADS);
    r->ahead = ahead_new(r->pool, fetch_ahead);
    return RC_OK;
}

void remote_done(struct remote *r)
{
    ahead_freep(&r->ahead);
    pool_freep(&r->pool);
    http_closep(&r->http);
    free(r->prefix);
}

void remote_before_fork(struct backend *b)
{
    ahead_before_fork(remote_of(b)->ahead);
}

void remote_after_fork(struct backend *b)
{
    struct remote *r = remote_of(b);
    http_after_fork(r->http);
    pool_after_fork(r->pool);
    ahead_after_fork(r->ahead);
    if (r->ops->after_fork)
        r->ops->after_fork(r);
}

void remote_free(struct backend *b)
{
    remote_of(b)->ops->free(remote_of(b));
}

static enum rc note_error(void *arg, const char *path, const char *text, struct err *err)
{
    struct remote_error *e = arg;
    (void)err;
    if (strcmp(path, "/Error/Code") == 0)
        (void)snprintf(e->code, sizeof(e->code), "%s", text);
    else if (strcmp(path, "/Error/Message") == 0)
        (void)snprintf(e->message, sizeof(e->message), "%s", text);
    else if (strcmp(path, "/Error/ServerTime") == 0)
        (void)snprintf(e->server_time, sizeof(e->server_time), "%s", text);
    return RC_OK;
}

void remote_read_error(const char *data, size_t len, struct remote_error *out)
{
    *out = (struct remote_error){.code = ""};
    (void)!xml_read("error", data, len, note_error, out, NULL); /* what could be read is told */
}

enum rc remote_size(const struct http_response *a, uint64_t *out, struct err *err)
{
    const char *text = http_header(a, "content-range");
    uint64_t from, to, size;
    if (text && a->status == 206 &&
        sscanf(text, "bytes %" SCNu64 "-%" SCNu64 "/%" SCNu64, &from, &to, &size) == 3 && to < size)
        *out = size;
    else if (text && a->status == 416 && strcmp(text, "bytes */0") == 0)
        *out = 0;
    else
        return err_set(err, RC_CORRUPT, "the server does not say how large it is");
    return RC_OK;
}

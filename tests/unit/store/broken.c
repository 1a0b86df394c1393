#include "unit/store/broken.h"

#include "base/mem.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>

struct broken {
    struct backend base;
    struct backend *inner;
    _Atomic unsigned calls[BROKEN_CALLS_];
    _Atomic unsigned call, at;
};

struct upload {
    struct backend_upload base;
    struct backend_upload *inner;
};

struct object {
    struct backend_object base;
    struct backend_object *inner;
};

static enum rc fails(struct backend *b, enum broken_call call, struct err *err)
{
    struct broken *x = (struct broken *)b;
    unsigned n = atomic_fetch_add(&x->calls[call], 1);
    return atomic_load(&x->call) == call && n >= atomic_load(&x->at)
               ? err_set(err, RC_NO_SPACE, "it is full")
               : RC_OK;
}

static enum rc broken_begin(struct backend *b, const char *key, struct backend_upload **out,
                            struct err *err)
{
    struct backend_upload *inner = NULL;
    enum rc rc = fails(b, BROKEN_BEGIN, err);
    if (!rc)
        rc = backend_begin(((struct broken *)b)->inner, key, &inner, err);
    if (rc)
        return rc;
    struct upload *u = mem_zalloc(sizeof(*u));
    u->inner = inner;
    *out = &u->base;
    return RC_OK;
}

static enum rc broken_append(struct backend_upload *u, const void *data, size_t len,
                             struct err *err)
{
    enum rc rc = fails(u->backend, BROKEN_APPEND, err);
    return rc ? rc : backend_append(((struct upload *)u)->inner, data, len, err);
}

static enum rc broken_commit(struct backend_upload *u, struct err *err)
{
    enum rc rc = fails(u->backend, BROKEN_COMMIT, err);
    return rc ? rc : backend_commit(((struct upload *)u)->inner, err);
}

static void broken_abort(struct backend_upload *u)
{
    backend_abortp(&((struct upload *)u)->inner);
    free(u);
}

static enum rc broken_open_object(struct backend *b, const char *key, struct backend_object **out,
                                  struct err *err)
{
    struct backend_object *inner = NULL;
    enum rc rc = fails(b, BROKEN_OPEN, err);
    if (!rc)
        rc = backend_open(((struct broken *)b)->inner, key, &inner, err);
    if (rc)
        return rc;
    struct object *o = mem_zalloc(sizeof(*o));
    o->inner = inner;
    o->base.size = inner->size;
    *out = &o->base;
    return RC_OK;
}

static enum rc broken_read(struct backend_object *o, uint64_t offset, void *data, size_t len,
                           struct err *err)
{
    enum rc rc = fails(o->backend, BROKEN_READ, err);
    return rc ? rc : backend_read(((struct object *)o)->inner, offset, data, len, err);
}

static void broken_close(struct backend_object *o)
{
    backend_closep(&((struct object *)o)->inner);
    free(o);
}

static enum rc broken_list(struct backend *b, const char *prefix, backend_visit *visit, void *arg,
                           struct err *err)
{
    enum rc rc = fails(b, BROKEN_LIST, err);
    return rc ? rc : backend_list(((struct broken *)b)->inner, prefix, visit, arg, err);
}

static enum rc broken_remove(struct backend *b, const char *key, struct err *err)
{
    enum rc rc = fails(b, BROKEN_REMOVE, err);
    return rc ? rc : backend_remove(((struct broken *)b)->inner, key, err);
}

static void broken_free(struct backend *b)
{
    free(b);
}

static const struct backend_ops broken_ops = {.name = "broken",
                                              .begin = broken_begin,
                                              .append = broken_append,
                                              .commit = broken_commit,
                                              .abort = broken_abort,
                                              .open = broken_open_object,
                                              .read = broken_read,
                                              .close = broken_close,
                                              .list = broken_list,
                                              .remove = broken_remove,
                                              .free = broken_free};

struct backend *broken_open(struct backend *inner)
{
    struct broken *b = mem_zalloc(sizeof(*b));
    b->base.ops = &broken_ops;
    b->inner = inner;
    broken_disarm(&b->base);
    return &b->base;
}

void broken_arm(struct backend *b, enum broken_call call, unsigned n)
{
    struct broken *x = (struct broken *)b;
    for (unsigned i = 0; i < BROKEN_CALLS_; i++)
        atomic_store(&x->calls[i], 0);
    atomic_store(&x->at, n);
    atomic_store(&x->call, call);
}

void broken_disarm(struct backend *b)
{
    broken_arm(b, BROKEN_CALLS_, UINT_MAX);
}

unsigned broken_calls(struct backend *b, enum broken_call call)
{
    return atomic_load(&((struct broken *)b)->calls[call]);
}

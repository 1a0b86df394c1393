#include "unit/backend/counting.h"

#include "base/mem.h"
#include "harness/httpd.h"
#include "harness/test.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct counter {
    struct backend base;
    struct backend *below;
    struct backend_ops ops;
    struct counting *counts;
};

struct object {
    struct backend_object base;
    struct backend_object *below;
};

static struct counter *counter_of(struct backend *b)
{
    return (struct counter *)b;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): it is counted up */
static void count(uint64_t *what, uint64_t n)
{
    (void)__atomic_fetch_add(what, n, __ATOMIC_RELAXED);
}

static enum rc counting_begin(struct backend *b, const char *key, struct backend_upload **out,
                              struct err *err)
{
    /* An upload belongs to who made it; nobody asks us for it again. */
    struct backend *below = counter_of(b)->below;
    return below->ops->begin(below, key, out, err);
}

static enum rc counting_open(struct backend *b, const char *key, struct backend_object **out,
                             struct err *err)
{
    struct counter *c = counter_of(b);
    struct backend_object *o = NULL;
    enum rc rc = c->below->ops->open(c->below, key, &o, err);
    if (rc)
        return rc;
    struct object *mine = mem_zalloc(sizeof(*mine));
    mine->below = o;
    mine->base.size = o->size;
    count(&c->counts->opens, 1);
    *out = &mine->base;
    return RC_OK;
}

static enum rc counting_read(struct backend_object *base, uint64_t offset, void *data, size_t len,
                             struct err *err)
{
    struct counter *c = counter_of(base->backend);
    if (c->counts->delay_ms)
        httpd_pause((unsigned)c->counts->delay_ms);
    count(&c->counts->reads, 1);
    count(&c->counts->bytes, len);
    return c->below->ops->read(((struct object *)base)->below, offset, data, len, err);
}

static void counting_close(struct backend_object *base)
{
    struct object *o = (struct object *)base;
    struct counter *c = counter_of(base->backend);
    c->below->ops->close(o->below);
    free(o);
}

static enum rc counting_stat(struct backend *b, const char *key, struct backend_info *out,
                             struct err *err)
{
    struct counter *c = counter_of(b);
    count(&c->counts->stats, 1);
    return c->below->ops->stat(c->below, key, out, err);
}

static enum rc counting_list(struct backend *b, const char *prefix, backend_visit *visit, void *arg,
                             struct err *err)
{
    struct backend *below = counter_of(b)->below;
    return below->ops->list(below, prefix, visit, arg, err);
}

static enum rc counting_remove(struct backend *b, const char *key, struct err *err)
{
    struct backend *below = counter_of(b)->below;
    return below->ops->remove(below, key, err);
}

static void counting_free(struct backend *b)
{
    backend_freep(&counter_of(b)->below);
    free(b);
}

struct backend *counting_new(struct backend *below, struct counting **out_counts)
{
    struct counter *c = mem_zalloc(sizeof(*c));
    void *at = mmap(NULL, sizeof(struct counting), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    c->counts = at;
    c->below = below;
    c->ops = *below->ops;
    c->ops.begin = counting_begin;
    c->ops.open = counting_open;
    c->ops.open_known = NULL;
    c->ops.read = counting_read;
    c->ops.close = counting_close;
    c->ops.stat = counting_stat;
    c->ops.list = counting_list;
    c->ops.remove = counting_remove;
    c->ops.free = counting_free;
    c->base.ops = &c->ops;
    *out_counts = c->counts;
    return &c->base;
}

#include "store/pack_check.h"

#include "base/compiler.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define PIECE ((size_t)1 << 20)
#define PACK_MAX                                                                                   \
    (PACK_TARGET + PACK_INDEX_TARGET + ((uint64_t)4 << 20)) /* that we may have made               \
                                                             */

static enum rc check_chunk(struct backend_object *o, const struct memory_chunk *c, void *buffer,
                           struct err *err)
{
    struct digest d;
    enum rc rc = backend_read(o, c->offset, buffer, c->stored, err);
    if (rc)
        return rc;
    digest_of(buffer, c->stored, &d);
    if (!digest_equal(&d, &c->digest))
        return err_set(err, RC_CORRUPT, "the chunk at byte %ju is damaged", (uintmax_t)c->offset);
    return RC_OK;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): `done` is counted up through the work */
enum rc pack_check(struct backend *b, const char *name, uint64_t *done, struct pack_index *out,
                   struct err *err)
{
    char key[PACK_KEY_LEN];
    uint64_t size = 0;
    CLEANUP(pack_index_done) struct pack_index x = {0};
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    CLEANUP(mem_freep) void *buffer = mem_alloc(MEMORY_CHUNK);
    pack_key(name, key);
    enum rc rc = pack_read_index(b, NULL, name, &x, &size, err);
    if (!rc)
        rc = backend_open(b, key, &o, err);
    for (size_t i = 0; !rc && i < x.n_chunks; i++) {
        rc = check_chunk(o, &x.chunks[i], buffer, err);
        if (rc)
            return err_ctx(err, rc, "pack '%s'", name);
        if (done)
            (void)__atomic_fetch_add(done, x.chunks[i].stored, __ATOMIC_RELAXED);
    }
    if (rc)
        return rc;
    *out = x;
    x = (struct pack_index){0};
    return RC_OK;
}

bool pack_find(const struct pack_index *x, const struct memory_chunk *c, size_t *out)
{
    size_t low = 0, high = x->n_chunks;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (x->chunks[middle].offset < c->offset)
            low = middle + 1;
        else
            high = middle;
    }
    *out = low;
    const struct memory_chunk *h = &x->chunks[low];
    return low < x->n_chunks && h->offset == c->offset && h->stored == c->stored &&
           h->pages == c->pages && h->codec == c->codec && digest_equal(&h->digest, &c->digest);
}

bool pack_has(const struct pack_index *x, const struct memory_chunk *c)
{
    size_t at;
    return pack_find(x, c, &at);
}

/* ---- from another storage ---- */

/* The whole object.  out: the caller's (free) */
static enum rc read_whole(struct backend *b, const char *key, void **out, uint64_t *out_len,
                          struct err *err)
{
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    enum rc rc = backend_open(b, key, &o, err);
    if (rc)
        return rc;
    if (o->size > PACK_MAX)
        return err_set(err, RC_TOO_BIG, "'%s' has %ju bytes", key, (uintmax_t)o->size);
    CLEANUP(mem_freep) char *data = mem_alloc((size_t)o->size + 1);
    for (uint64_t at = 0; !rc && at < o->size; at += PIECE)
        rc = backend_read(o, at, data + at, o->size - at < PIECE ? (size_t)(o->size - at) : PIECE,
                          err);
    if (rc)
        return rc;
    *out_len = o->size;
    *out = STEAL(data);
    return RC_OK;
}

static enum rc verify_bytes(const char *data, uint64_t len, const struct memory *m, uint32_t pack,
                            const struct pack_index *x, struct err *err)
{
    for (size_t i = 0; i < x->n_chunks; i++) {
        const struct memory_chunk *c = &x->chunks[i];
        struct digest d;
        if (c->offset + c->stored > len)
            return err_set(err, RC_CORRUPT, "it has changed meanwhile");
        digest_of(data + c->offset, c->stored, &d);
        if (!digest_equal(&d, &c->digest))
            return err_set(err, RC_CORRUPT, "the chunk at byte %ju is damaged",
                           (uintmax_t)c->offset);
    }
    for (size_t i = 0; i < m->n_chunks; i++)
        if (m->chunks[i].pack == pack && !pack_has(x, &m->chunks[i]))
            return err_set(err, RC_CORRUPT, "it has no chunk at byte %ju as it is needed",
                           (uintmax_t)m->chunks[i].offset);
    return RC_OK;
}

static enum rc replace(struct backend *to, const char *key, const void *data, uint64_t len,
                       struct err *err)
{
    enum rc rc = backend_put(to, key, data, (size_t)len, err);
    if (rc != RC_EXISTS)
        return rc;
    /* The damaged one goes only now that the good one is in our hands. */
    rc = backend_remove(to, key, err);
    return rc && rc != RC_NOT_FOUND ? rc : backend_put(to, key, data, (size_t)len, err);
}

enum rc pack_bring(struct backend *from, struct backend *to, const struct memory *m, uint32_t pack,
                   uint64_t *out_bytes, struct err *err)
{
    const char *name = m->packs[pack].name;
    char key[PACK_KEY_LEN];
    uint64_t len = 0, size = 0;
    CLEANUP(pack_index_done) struct pack_index x = {0};
    CLEANUP(mem_freep) char *data = NULL;
    void *bytes = NULL;
    pack_key(name, key);
    enum rc rc = pack_read_index(from, NULL, name, &x, &size, err);
    if (!rc)
        rc = read_whole(from, key, &bytes, &len, err);
    data = bytes;
    if (rc)
        return rc;
    rc = verify_bytes(data, len, m, pack, &x, err);
    if (rc)
        return err_ctx(err, rc, "pack '%s' of the other store", name);
    rc = replace(to, key, data, len, err);
    if (!rc)
        *out_bytes += len;
    return rc;
}

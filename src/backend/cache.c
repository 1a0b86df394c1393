#include "backend/cache.h"

#include "backend/cache_disk.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct cache {
    struct backend base;
    struct backend *below;
    struct backend_ops ops; /* ours, under the storage's name: messages are about the storage */
    struct cache_disk *disk;
    struct digest storage;
};

struct upload {
    struct backend_upload base;
    struct backend_upload *below;
};

struct object {
    struct backend_object base;
    struct cache *cache;
    char *key;
    bool cached;
    struct digest id;
    struct backend_info info;
    pthread_mutex_t lock; /* of what follows */
    struct backend_object *below;
};

static struct cache *cache_of(struct backend *b)
{
    return (struct cache *)b;
}

/* ---- writing goes through ---- */

static enum rc cache_begin(struct backend *b, const char *key, struct backend_upload **out,
                           struct err *err)
{
    struct backend *below = cache_of(b)->below;
    struct backend_upload *u = NULL;
    enum rc rc = below->ops->begin(below, key, &u, err);
    if (rc)
        return rc;
    u->backend = below;
    memcpy(u->key, key, strlen(key) + 1);
    struct upload *mine = mem_zalloc(sizeof(*mine));
    mine->below = u;
    *out = &mine->base;
    return RC_OK;
}

static enum rc cache_append(struct backend_upload *base, const void *data, size_t len,
                            struct err *err)
{
    struct backend_upload *u = ((struct upload *)base)->below;
    enum rc rc = u->backend->ops->append(u, data, len, err);
    u->size += rc ? 0 : len;
    return rc;
}

static enum rc cache_commit(struct backend_upload *base, struct err *err)
{
    struct backend_upload *u = ((struct upload *)base)->below;
    u->replace = base->replace;
    return u->backend->ops->commit(u, err);
}

static void cache_abort(struct backend_upload *base)
{
    struct backend_upload *u = ((struct upload *)base)->below;
    u->backend->ops->abort(u);
    free(base);
}

static enum rc cache_list(struct backend *b, const char *prefix, backend_visit *visit, void *arg,
                          struct err *err)
{
    struct backend *below = cache_of(b)->below;
    return below->ops->list(below, prefix, visit, arg, err);
}

static enum rc cache_remove(struct backend *b, const char *key, struct err *err)
{
    struct backend *below = cache_of(b)->below;
    return below->ops->remove(below, key, err);
}

/* ---- opening ---- */

static bool is_pack(const char *key)
{
    return strncmp(key, "packs/", 6) == 0;
}

static bool is_checkpoint(const char *key)
{
    size_t n = strlen(key);
    return n > 4 && strcmp(key + n - 4, ".tar") == 0 && !strchr(key, '/');
}

static bool is_record(const char *key)
{
    return strncmp(key, "workingset/", 11) == 0;
}

/* Everything that makes a content this one. */
static void object_id(const struct cache *c, const char *key, const struct backend_info *info,
                      struct digest *out)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    buf_add(&text, c->storage.bytes, DIGEST_LEN);
    buf_adds(&text, key);
    if (info)
        buf_addf(&text, "\n%" PRIu64 "\n%s", info->size, info->tag);
    digest_of(text.data, text.len, out);
}

/* The size of a pack that was seen before is a block of its own, so that opening it asks nobody. */
static struct cache_name size_name(const struct digest *id)
{
    return (struct cache_name){*id, UINT64_MAX};
}

static enum rc pack_info(struct cache *c, const char *key, const struct digest *id,
                         struct backend_info *out, struct err *err)
{
    struct cache_name name = size_name(id);
    struct backend_info info;
    if (cache_disk_read(c->disk, &name, 0, &info, sizeof(info), NULL) == RC_OK) {
        *out = info;
        return RC_OK;
    }
    CLEANUP(fd_closep) int lock = cache_disk_lock(c->disk, &name);
    if (lock >= 0 && cache_disk_read(c->disk, &name, 0, &info, sizeof(info), NULL) == RC_OK) {
        *out = info;
        return RC_OK;
    }
    memset(&info, 0, sizeof(info));
    enum rc rc = c->below->ops->stat(c->below, key, &info, err);
    if (rc)
        return rc;
    cache_disk_write(c->disk, &name, &info, sizeof(info));
    *out = info;
    return RC_OK;
}

static enum rc cache_stat(struct backend *b, const char *key, struct backend_info *out,
                          struct err *err)
{
    struct cache *c = cache_of(b);
    struct digest id;
    if (!is_pack(key))
        return c->below->ops->stat(c->below, key, out, err);
    object_id(c, key, NULL, &id);
    return pack_info(c, key, &id, out, err);
}

static enum rc open_below(struct object *o, struct err *err)
{
    struct backend *below = o->cache->below;
    struct backend_object *got = NULL;
    enum rc rc = o->cached && below->ops->open_known
                     ? below->ops->open_known(below, o->key, &o->info, &got, err)
                     : below->ops->open(below, o->key, &got, err);
    if (rc)
        return rc;
    got->backend = below;
    memcpy(got->key, o->key, strlen(o->key) + 1);
    if (o->cached && got->size != o->info.size) {
        backend_closep(&got);
        return err_set(err, RC_NOT_FOUND, "another object has taken its place");
    }
    o->below = got;
    return RC_OK;
}

static void cache_close(struct backend_object *base)
{
    struct object *o = (struct object *)base;
    backend_closep(&o->below);
    (void)pthread_mutex_destroy(&o->lock);
    free(o->key);
    free(o);
}

static enum rc cache_open(struct backend *b, const char *key, struct backend_object **out,
                          struct err *err)
{
    struct cache *c = cache_of(b);
    struct object *o = mem_zalloc(sizeof(*o));
    *o = (struct object){.cache = c, .key = mem_strdup(key)};
    (void)pthread_mutex_init(&o->lock, NULL);
    enum rc rc = RC_OK;
    if (is_pack(key)) {
        object_id(c, key, NULL, &o->id);
        rc = pack_info(c, key, &o->id, &o->info, err);
        o->cached = true;
    } else if (is_checkpoint(key) || is_record(key)) {
        rc = c->below->ops->stat(c->below, key, &o->info, err);
        o->cached = o->info.tag[0] != '\0';
        object_id(c, key, &o->info, &o->id);
    }
    if (!rc && !o->cached)
        rc = open_below(o, err);
    if (rc) {
        cache_close(&o->base);
        return rc;
    }
    o->base.size = o->cached ? o->info.size : o->below->size;
    *out = &o->base;
    return RC_OK;
}

/* ---- reading ---- */

/* Of the storage itself. */
static enum rc read_below(struct object *o, uint64_t offset, void *data, size_t len,
                          struct err *err)
{
    (void)pthread_mutex_lock(&o->lock);
    enum rc rc = o->below ? RC_OK : open_below(o, err);
    struct backend_object *below = o->below;
    (void)pthread_mutex_unlock(&o->lock);
    return rc || !below ? rc : below->backend->ops->read(below, offset, data, len, err);
}

/* Fetch a whole block, keep it, and give what is wanted of it. */
static enum rc fetch(struct object *o, const struct cache_name *name, size_t at, void *data,
                     size_t len, struct err *err)
{
    uint64_t begin = name->number * CACHE_BLOCK, left = o->info.size - begin;
    size_t whole = left < CACHE_BLOCK ? (size_t)left : CACHE_BLOCK;
    CLEANUP(mem_freep) uint8_t *block = mem_alloc(whole);
    enum rc rc = read_below(o, begin, block, whole, err);
    if (rc)
        return rc;
    cache_disk_write(o->cache->disk, name, block, whole);
    memcpy(data, block + at, len);
    return RC_OK;
}

static enum rc read_block(struct object *o, uint64_t number, size_t at, void *data, size_t len,
                          struct err *err)
{
    struct cache_disk *disk = o->cache->disk;
    struct cache_name name = {o->id, number};
    if (cache_disk_read(disk, &name, at, data, len, NULL) == RC_OK)
        return RC_OK;
    CLEANUP(fd_closep) int lock = cache_disk_lock(disk, &name);
    if (lock < 0)
        return read_below(o, number * CACHE_BLOCK + at, data, len, err);
    if (cache_disk_read(disk, &name, at, data, len, NULL) == RC_OK) /* by who had the lock */
        return RC_OK;
    return fetch(o, &name, at, data, len, err);
}

static enum rc cache_read(struct backend_object *base, uint64_t offset, void *data, size_t len,
                          struct err *err)
{
    struct object *o = (struct object *)base;
    if (!o->cached)
        return read_below(o, offset, data, len, err);
    while (len > 0) {
        size_t at = (size_t)(offset % CACHE_BLOCK);
        size_t n = len < CACHE_BLOCK - at ? len : CACHE_BLOCK - at;
        enum rc rc = read_block(o, offset / CACHE_BLOCK, at, data, n, err);
        if (rc)
            return rc;
        data = (char *)data + n;
        offset += n;
        len -= n;
    }
    return RC_OK;
}

static bool cache_forget(struct backend_object *base, uint64_t offset, size_t len)
{
    struct object *o = (struct object *)base;
    bool was_there = false;
    for (uint64_t n = offset / CACHE_BLOCK; o->cached && n * CACHE_BLOCK < offset + len; n++)
        was_there |= cache_disk_remove(o->cache->disk, &(struct cache_name){o->id, n});
    return was_there;
}

/* ---- life ---- */

static void cache_before_fork(struct backend *b)
{
    backend_before_fork(cache_of(b)->below);
}

static void cache_after_fork(struct backend *b)
{
    backend_after_fork(cache_of(b)->below);
}

static void cache_free(struct backend *b)
{
    struct cache *c = cache_of(b);
    backend_freep(&c->below);
    cache_disk_freep(&c->disk);
    free(c);
}

enum rc backend_cache_open(struct backend *below, const struct cache_options *o,
                           struct backend **out, struct err *err)
{
    if (o->bytes < CACHE_MIN)
        return err_set(err, RC_INVALID, "a cache has at least %ju MiB",
                       (uintmax_t)(CACHE_MIN >> 20));
    struct cache *c = mem_zalloc(sizeof(*c));
    enum rc rc = cache_disk_open(o->dir, o->bytes, &c->disk, err);
    if (rc) {
        free(c);
        return rc;
    }
    c->ops = (struct backend_ops){.name = below->ops->name,
                                  .pace = below->ops->pace,
                                  .begin = cache_begin,
                                  .append = cache_append,
                                  .commit = cache_commit,
                                  .abort = cache_abort,
                                  .open = cache_open,
                                  .read = cache_read,
                                  .close = cache_close,
                                  .stat = cache_stat,
                                  .forget = cache_forget,
                                  .list = cache_list,
                                  .remove = cache_remove,
                                  .before_fork = cache_before_fork,
                                  .after_fork = cache_after_fork,
                                  .free = cache_free};
    c->base.ops = &c->ops;
    c->below = below;
    digest_of(o->storage, strlen(o->storage), &c->storage);
    *out = &c->base;
    return RC_OK;
}

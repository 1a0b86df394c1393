#include "base/mem.h"

#include "backend/backend.h"
#include "backend/drivers.h"
#include "base/buf.h"
#include "base/compiler.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An object lives as long as somebody has it open. */
struct blob {
    struct blob *next;
    char *key;
    void *data;
    uint64_t size;
    uint64_t serial;
    unsigned users;
};

struct memory {
    struct backend base;
    pthread_mutex_t lock;
    struct blob *blobs;
    uint64_t serial; /* of the last one */
};

struct upload {
    struct backend_upload base;
    struct memory *memory;
    char *key;
    struct buf content;
};

struct object {
    struct backend_object base;
    struct memory *memory;
    struct blob *blob;
};

static struct blob **find(struct memory *m, const char *key)
{
    struct blob **p = &m->blobs;
    while (*p && strcmp((*p)->key, key) != 0)
        p = &(*p)->next;
    return p;
}

static void release(struct blob *b)
{
    if (--b->users > 0)
        return;
    free(b->key);
    free(b->data);
    free(b);
}

static enum rc mem_begin(struct backend *b, const char *key, struct backend_upload **out,
                         struct err *err)
{
    (void)err;
    struct upload *u = mem_zalloc(sizeof(*u));
    *u = (struct upload){
        .memory = (struct memory *)b, .key = mem_strdup(key), .content = {.max = (size_t)1 << 40}};
    *out = &u->base;
    return RC_OK;
}

static enum rc mem_append(struct backend_upload *base, const void *data, size_t len,
                          struct err *err)
{
    (void)err;
    buf_add(&((struct upload *)base)->content, data, len);
    return RC_OK;
}

static enum rc mem_commit(struct backend_upload *base, struct err *err)
{
    struct upload *u = (struct upload *)base;
    (void)pthread_mutex_lock(&u->memory->lock);
    struct blob **place = find(u->memory, u->key);
    if (u->base.replace && *place) {
        struct blob *old = *place;
        *place = old->next;
        release(old);
        place = find(u->memory, u->key);
    }
    bool there = *place != NULL;
    if (!there) {
        struct blob *blob = mem_zalloc(sizeof(*blob));
        *blob = (struct blob){.key = STEAL(u->key),
                              .size = u->content.len,
                              .serial = ++u->memory->serial,
                              .users = 1};
        blob->data = buf_steal(&u->content);
        *place = blob;
    }
    (void)pthread_mutex_unlock(&u->memory->lock);
    return there ? err_set(err, RC_EXISTS, "it is there already") : RC_OK;
}

static void mem_abort(struct backend_upload *base)
{
    struct upload *u = (struct upload *)base;
    buf_done(&u->content);
    free(u->key);
    free(u);
}

static enum rc mem_open(struct backend *b, const char *key, struct backend_object **out,
                        struct err *err)
{
    struct memory *m = (struct memory *)b;
    (void)pthread_mutex_lock(&m->lock);
    struct blob *blob = *find(m, key);
    if (blob)
        blob->users++;
    (void)pthread_mutex_unlock(&m->lock);
    if (!blob)
        return err_set(err, RC_NOT_FOUND, "there is no such object");
    struct object *o = mem_zalloc(sizeof(*o));
    *o = (struct object){.memory = m, .blob = blob, .base.size = blob->size};
    *out = &o->base;
    return RC_OK;
}

static enum rc mem_read(struct backend_object *base, uint64_t offset, void *data, size_t len,
                        struct err *err)
{
    (void)err;
    memcpy(data, (const char *)((struct object *)base)->blob->data + offset, len);
    return RC_OK;
}

static void mem_close(struct backend_object *base)
{
    struct object *o = (struct object *)base;
    struct memory *m = o->memory;
    (void)pthread_mutex_lock(&m->lock);
    release(o->blob);
    (void)pthread_mutex_unlock(&m->lock);
    free(o);
}

/* What is there now, then the visits without the lock: a visit may use the backend. */
static enum rc mem_stat(struct backend *b, const char *key, struct backend_info *out,
                        struct err *err)
{
    struct backend_object *o = NULL;
    enum rc rc = mem_open(b, key, &o, err);
    if (rc || !o)
        return rc;
    out->size = o->size;
    (void)snprintf(out->tag, sizeof(out->tag), "%ju",
                   (uintmax_t)((struct object *)o)->blob->serial);
    mem_close(o);
    return RC_OK;
}

static enum rc mem_list(struct backend *b, const char *prefix, backend_visit *visit, void *arg,
                        struct err *err)
{
    struct memory *m = (struct memory *)b;
    CLEANUP(buf_done) struct buf keys = {.max = (size_t)1 << 30};
    CLEANUP(buf_done) struct buf sizes = {.max = (size_t)1 << 30};
    (void)pthread_mutex_lock(&m->lock);
    for (const struct blob *x = m->blobs; x; x = x->next)
        if (strncmp(x->key, prefix, strlen(prefix)) == 0) {
            buf_add(&keys, x->key, strlen(x->key) + 1);
            buf_add(&sizes, &x->size, sizeof(x->size));
        }
    (void)pthread_mutex_unlock(&m->lock);
    enum rc rc = RC_OK;
    size_t i = 0;
    for (size_t at = 0; !rc && at < keys.len; at += strlen(keys.data + at) + 1, i++) {
        uint64_t size;
        memcpy(&size, sizes.data + i * sizeof(size), sizeof(size));
        rc = visit(arg, keys.data + at, size, err);
    }
    return rc;
}

static enum rc mem_remove(struct backend *b, const char *key, struct err *err)
{
    struct memory *m = (struct memory *)b;
    (void)pthread_mutex_lock(&m->lock);
    struct blob **place = find(m, key), *blob = *place;
    if (blob) {
        *place = blob->next;
        release(blob);
    }
    (void)pthread_mutex_unlock(&m->lock);
    return blob ? RC_OK : err_set(err, RC_NOT_FOUND, "there is no such object");
}

static void mem_free(struct backend *b)
{
    struct memory *m = (struct memory *)b;
    while (m->blobs) {
        struct blob *blob = m->blobs;
        m->blobs = blob->next;
        release(blob);
    }
    (void)pthread_mutex_destroy(&m->lock);
    free(m);
}

static const struct backend_ops mem_ops = {.name = "memory",
                                           .begin = mem_begin,
                                           .append = mem_append,
                                           .commit = mem_commit,
                                           .abort = mem_abort,
                                           .open = mem_open,
                                           .stat = mem_stat,
                                           .read = mem_read,
                                           .close = mem_close,
                                           .list = mem_list,
                                           .remove = mem_remove,
                                           .free = mem_free};

enum rc backend_mem_open(struct backend **out, struct err *err)
{
    (void)err;
    struct memory *m = mem_zalloc(sizeof(*m));
    m->base.ops = &mem_ops;
    (void)pthread_mutex_init(&m->lock, NULL);
    *out = &m->base;
    return RC_OK;
}

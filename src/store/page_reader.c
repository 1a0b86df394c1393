#include "store/page_reader.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "codec/secret.h"
#include "store/pack.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 64U

#define KEPT_MAX 16U /* 4 MiB */

/* A chunk that was read, kept for who needs it next: of this or of changes to it. */
struct kept {
    uint32_t chunk;
    uint8_t *pages; /* MEMORY_CHUNK bytes */
};

struct page_reader {
    const struct memory *memory;
    struct backend_object **packs;
    uint8_t *keys; /* of sealed packs, CIPHER_KEY bytes each, else NULL */
    bool keeps;    /* chunks that were read: reading one again is dear */

    pthread_mutex_t lock; /* contexts and chunks that no thread is using */
    struct cipher *idle[THREADS_MAX];
    struct kept kept[KEPT_MAX];
    size_t n_idle, n_kept;
};

static enum rc derive_keys(struct page_reader *r, const struct domain *d, struct err *err)
{
    const struct memory *m = r->memory;
    if (!d)
        return err_set(err, RC_DENIED, "the memory is encrypted, and there is no key");
    if (m->n_packs > SECRET_MAX / CIPHER_KEY)
        return err_set(err, RC_TOO_BIG, "the memory lies in %zu packs", m->n_packs);
    r->keys = secret_alloc(m->n_packs * CIPHER_KEY);
    for (size_t i = 0; i < m->n_packs; i++) {
        enum rc rc = domain_pack_key(d, m->packs[i].name, r->keys + i * CIPHER_KEY, err);
        if (rc)
            return rc;
    }
    return RC_OK;
}

static enum rc say_missing(enum rc rc, const struct memory_pack *p, struct err *err)
{
    return rc == RC_NOT_FOUND ? err_set(err, RC_CORRUPT, "pack '%s' is missing", p->name) : rc;
}

enum rc page_reader_open(struct backend *b, const struct domain *d, const struct memory *m,
                         struct page_reader **out, struct err *err)
{
    CLEANUP(page_reader_freep) struct page_reader *r = mem_zalloc(sizeof(*r));
    r->memory = m;
    (void)pthread_mutex_init(&r->lock, NULL);
    enum rc bad = m->sealed ? derive_keys(r, d, err) : RC_OK;
    if (bad)
        return bad;
    r->packs = mem_zalloc((m->n_packs + 1) * sizeof(void *));
    for (size_t i = 0; i < m->n_packs; i++) {
        char key[PACK_KEY_LEN];
        pack_key(m->packs[i].name, key);
        struct backend_info info = {.size = m->packs[i].size};
        enum rc rc = backend_open_known(b, key, &info, &r->packs[i], err);
        if (!rc && r->packs[i]->size < m->packs[i].size)
            rc = err_set(err, RC_CORRUPT, "pack '%s' has been cut off", m->packs[i].name);
        if (rc)
            return say_missing(rc, &m->packs[i], err);
    }
    /* Of changes the bases are wanted again, and over a network who reads some pages of a chunk is
     * soon followed by who reads others. */
    r->keeps = m->n_bases > 0 || page_reader_pace(r).reads > 0;
    *out = STEAL(r);
    return RC_OK;
}

void page_reader_freep(struct page_reader **p)
{
    struct page_reader *r = STEAL(*p);
    if (!r)
        return;
    for (size_t i = 0; r->packs && i < r->memory->n_packs; i++)
        backend_closep(&r->packs[i]);
    while (r->n_idle)
        cipher_freep(&r->idle[--r->n_idle]);
    while (r->n_kept)
        free(r->kept[--r->n_kept].pages);
    secret_freep(&r->keys);
    (void)pthread_mutex_destroy(&r->lock);
    free(r->packs);
    free(r);
}

void page_reader_before_fork(const struct page_reader *r)
{
    if (r->memory->n_packs > 0)
        backend_before_fork(r->packs[0]->backend);
    if (r->keys)
        secret_inherit(r->keys, true);
}

void page_reader_after_fork(const struct page_reader *r)
{
    if (r->memory->n_packs > 0)
        backend_after_fork(r->packs[0]->backend);
    page_reader_forked(r);
}

void page_reader_forked(const struct page_reader *r)
{
    if (r->keys)
        secret_inherit(r->keys, false);
}

void page_reader_forget(const struct page_reader *r)
{
    if (r->keys)
        secret_wipe(r->keys, r->memory->n_packs * CIPHER_KEY);
}

const struct memory *page_reader_memory(const struct page_reader *r)
{
    return r->memory;
}

/* A context that is nobody's meanwhile: threads find the ones that they have left. */
static enum rc take_cipher(struct page_reader *r, struct cipher **out, struct err *err)
{
    (void)pthread_mutex_lock(&r->lock);
    struct cipher *c = r->n_idle ? r->idle[--r->n_idle] : NULL;
    (void)pthread_mutex_unlock(&r->lock);
    if (c)
        *out = c;
    return c ? RC_OK : cipher_new(out, err);
}

static void leave_cipher(struct page_reader *r, struct cipher *c)
{
    (void)pthread_mutex_lock(&r->lock);
    if (r->n_idle < THREADS_MAX) {
        r->idle[r->n_idle++] = c;
        c = NULL;
    }
    (void)pthread_mutex_unlock(&r->lock);
    cipher_freep(&c);
}

static enum rc verify_chunk(const struct page_reader *r, const struct memory_chunk *c, void *data,
                            struct err *err)
{
    struct cipher *cipher = NULL;
    struct digest d;
    if (!r->keys) {
        digest_of(data, c->stored, &d);
        return digest_equal(&d, &c->digest) ? RC_OK : err_set(err, RC_CORRUPT, "wrong digest");
    }
    struct page_reader *pool = (struct page_reader *)(uintptr_t)r;
    enum rc rc = take_cipher(pool, &cipher, err);
    if (rc)
        return rc;
    rc = pack_open_chunk(cipher, r->keys + (size_t)c->pack * CIPHER_KEY, c, data, err);
    leave_cipher(pool, cipher);
    return rc;
}

struct backend_pace page_reader_pace(const struct page_reader *r)
{
    return r->memory->n_packs ? backend_pace(r->packs[0]->backend) : (struct backend_pace){0};
}

enum rc page_reader_stored(const struct page_reader *r, uint32_t pack, uint64_t offset, void *data,
                           size_t len, struct err *err)
{
    enum rc rc = backend_read(r->packs[pack], offset, data, len, err);
    return say_missing(rc, &r->memory->packs[pack], err);
}

/* A chunk whose reading, or else verifying, came to `rc`. */
static enum rc expand(const struct page_reader *r, const struct memory_chunk *c, enum rc rc,
                      void *data, void *out, struct digest *whole, struct err *err)
{
    const char *pack = r->memory->packs[c->pack].name;
    /* A cache may have what was repaired in the store since. */
    if (rc == RC_CORRUPT && backend_forget(r->packs[c->pack], c->offset, c->stored)) {
        rc = page_reader_stored(r, c->pack, c->offset, data, c->stored, err);
        rc = rc ? rc : verify_chunk(r, c, data, err);
    }
    if (rc == RC_CORRUPT)
        return err_set(err, RC_CORRUPT, "memory is damaged: chunk at byte %ju of pack '%s'",
                       (uintmax_t)c->offset, pack);
    if (rc)
        return rc;
    rc = pack_expand_chunk(c, data, out, whole, err);
    return rc ? err_ctx(err, rc, "pack '%s'", pack) : RC_OK;
}

/* Read a chunk; its changes, if it holds such, are not applied. */
static enum rc read_pages(const struct page_reader *r, uint32_t chunk, void *scratch, void *out,
                          struct digest *whole, struct err *err)
{
    const struct memory_chunk *c = &r->memory->chunks[chunk];
    enum rc rc = page_reader_stored(r, c->pack, c->offset, scratch, c->stored, err);
    return expand(r, c, rc ? rc : verify_chunk(r, c, scratch, err), scratch, out, whole, err);
}

/* Take the chunk out of those that are kept: then it is nobody else's.  False: it is not there. */
static bool take_kept(struct page_reader *r, uint32_t chunk, struct kept *out)
{
    (void)pthread_mutex_lock(&r->lock);
    size_t i = 0;
    while (i < r->n_kept && r->kept[i].chunk != chunk)
        i++;
    bool there = i < r->n_kept;
    if (there) {
        *out = r->kept[i];
        memmove(r->kept + i, r->kept + i + 1, (--r->n_kept - i) * sizeof(*out));
    }
    (void)pthread_mutex_unlock(&r->lock);
    return there;
}

/* Room for a chunk: that of the oldest, when there are enough. */
static uint8_t *take_room(struct page_reader *r)
{
    uint8_t *room = NULL;
    (void)pthread_mutex_lock(&r->lock);
    if (r->n_kept == KEPT_MAX) {
        room = r->kept[0].pages;
        memmove(r->kept, r->kept + 1, --r->n_kept * sizeof(*r->kept));
    }
    (void)pthread_mutex_unlock(&r->lock);
    return room ? room : mem_alloc(MEMORY_CHUNK);
}

/* The newest is the last. */
static void keep(struct page_reader *r, struct kept k)
{
    (void)pthread_mutex_lock(&r->lock);
    if (r->n_kept < KEPT_MAX) {
        r->kept[r->n_kept++] = k;
        k.pages = NULL;
    }
    (void)pthread_mutex_unlock(&r->lock);
    free(k.pages);
}

static void keep_copy(struct page_reader *r, uint32_t chunk, const void *pages)
{
    struct kept k = {chunk, take_room(r)};
    memcpy(k.pages, pages, r->memory->chunks[chunk].pages * MEMORY_PAGE);
    keep(r, k);
}

/* Make pages of their changes.  scratch: as for page_reader_chunk() */
static enum rc apply_changes(struct page_reader *r, uint32_t chunk, const struct digest *whole,
                             void *scratch, uint8_t *pages, struct err *err)
{
    const struct memory_chunk *c = &r->memory->chunks[chunk];
    const struct memory_base *list;
    size_t n = memory_bases(r->memory, chunk, &list);
    struct digest d;
    for (size_t i = 0; i < n; i++) {
        struct kept k = {list[i].of, NULL};
        enum rc rc = RC_OK;
        if (!take_kept(r, list[i].of, &k)) {
            k.pages = take_room(r);
            rc = read_pages(r, list[i].of, scratch, k.pages, NULL, err);
        }
        if (rc) {
            free(k.pages);
            return rc;
        }
        for (size_t p = 0; p < list[i].pages; p++)
            memory_apply(pages + (list[i].at + p) * MEMORY_PAGE,
                         k.pages + (list[i].of_at + p) * MEMORY_PAGE);
        keep(r, k);
    }
    digest_of(pages, c->pages * MEMORY_PAGE, &d);
    if (!digest_equal(&d, whole))
        return err_set(err, RC_CORRUPT,
                       "memory is damaged: the changes at byte %ju of pack '%s' are of other pages",
                       (uintmax_t)c->offset, r->memory->packs[c->pack].name);
    return RC_OK;
}

/* What was read becomes pages.  Where there are changes, neighbours lie in turn in chunks of them
 * and in others. */
static enum rc finish(const struct page_reader *r, uint32_t chunk, const struct digest *whole,
                      void *scratch, void *out, struct err *err)
{
    struct page_reader *pool = (struct page_reader *)(uintptr_t)r;
    enum rc rc = memory_has_changes(&r->memory->chunks[chunk])
                     ? apply_changes(pool, chunk, whole, scratch, out, err)
                     : RC_OK;
    if (!rc && r->keeps)
        keep_copy(pool, chunk, out);
    return rc;
}

static bool find_kept(const struct page_reader *r, uint32_t chunk, void *out)
{
    struct page_reader *pool = (struct page_reader *)(uintptr_t)r;
    struct kept k;
    if (!r->keeps || !take_kept(pool, chunk, &k))
        return false;
    memcpy(out, k.pages, r->memory->chunks[chunk].pages * MEMORY_PAGE);
    keep(pool, k);
    return true;
}

enum rc page_reader_expand(const struct page_reader *r, uint32_t chunk, void *data, void *out,
                           struct err *err)
{
    const struct memory_chunk *c = &r->memory->chunks[chunk];
    struct digest whole;
    enum rc rc = expand(r, c, verify_chunk(r, c, data, err), data, out, &whole, err);
    if (rc || !memory_has_changes(c))
        return rc;
    CLEANUP(mem_freep) uint8_t *scratch = mem_alloc(MEMORY_CHUNK);
    return finish(r, chunk, &whole, scratch, out, err);
}

enum rc page_reader_chunk(const struct page_reader *r, uint32_t chunk, void *scratch, void *out,
                          struct err *err)
{
    struct digest whole;
    if (find_kept(r, chunk, out))
        return RC_OK;
    enum rc rc = read_pages(r, chunk, scratch, out, &whole, err);
    return rc ? rc : finish(r, chunk, &whole, scratch, out, err);
}

enum rc page_reader_pages(const struct page_reader *r, uint32_t stream, uint64_t first, uint64_t n,
                          void *out, struct err *err)
{
    const struct memory_stream *s = memory_stream(r->memory, stream);
    if (!s || first > s->pages || n > s->pages - first)
        return err_set(err, RC_CORRUPT, "page image %u has no such pages", stream);
    CLEANUP(mem_freep) uint8_t *buffers = mem_alloc(2 * MEMORY_CHUNK);
    uint8_t *to = out, *pages = buffers + MEMORY_CHUNK;
    for (size_t i = n ? memory_find(r->memory, s, first) : 0; n > 0; i++) {
        const struct memory_extent *e = &r->memory->extents[i];
        uint64_t skip = first - e->page, part = e->pages - skip < n ? e->pages - skip : n;
        if (e->chunk == MEMORY_ZERO) {
            memset(to, 0, part * MEMORY_PAGE);
        } else {
            enum rc rc = page_reader_chunk(r, e->chunk, buffers, pages, err);
            if (rc)
                return rc;
            memcpy(to, pages + (e->at + skip) * MEMORY_PAGE, part * MEMORY_PAGE);
        }
        to += part * MEMORY_PAGE;
        first += part;
        n -= part;
    }
    return RC_OK;
}

/* ---- looking whether packs are there ---- */

struct check {
    const struct page_reader *reader;
    size_t next; /* atomic */
    pthread_mutex_t lock;
    enum rc rc; /* atomic */
    struct err err;
};

static enum rc check_pack(const struct page_reader *r, size_t i, struct err *err)
{
    const struct memory_pack *p = &r->memory->packs[i];
    struct backend_info info = {0};
    char key[PACK_KEY_LEN];
    pack_key(p->name, key);
    enum rc rc = backend_stat(r->packs[i]->backend, key, &info, err);
    if (!rc && info.size < p->size)
        rc = err_set(err, RC_CORRUPT, "pack '%s' has been cut off", p->name);
    return say_missing(rc, p, err);
}

static void *check_packs(void *arg)
{
    struct check *c = arg;
    for (;;) {
        struct err err = ERR_INIT;
        size_t i = __atomic_fetch_add(&c->next, 1, __ATOMIC_RELAXED);
        if (i >= c->reader->memory->n_packs || __atomic_load_n(&c->rc, __ATOMIC_RELAXED))
            return NULL;
        enum rc rc = check_pack(c->reader, i, &err);
        if (!rc)
            continue;
        (void)pthread_mutex_lock(&c->lock);
        if (!c->rc) {
            c->err = err;
            __atomic_store_n(&c->rc, rc, __ATOMIC_RELAXED);
        }
        (void)pthread_mutex_unlock(&c->lock);
    }
}

enum rc page_reader_check(const struct page_reader *r, struct err *err)
{
    struct check c = {.reader = r, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t others[THREADS_MAX];
    unsigned started = 0, wanted = page_reader_pace(r).reads;
    while (started + 1 < wanted && started + 1 < r->memory->n_packs && started < THREADS_MAX &&
           pthread_create(&others[started], NULL, check_packs, &c) == 0)
        started++;
    (void)check_packs(&c);
    for (unsigned i = 0; i < started; i++)
        (void)pthread_join(others[i], NULL);
    (void)pthread_mutex_destroy(&c.lock);
    if (c.rc && err)
        *err = c.err;
    return c.rc;
}

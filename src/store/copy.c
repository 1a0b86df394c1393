#include "store/copy.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/listing.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/hex.h"
#include "store/done.h"
#include "store/keyring.h"
#include "store/memory.h"
#include "store/pack.h"
#include "store/store_priv.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PIECE ((size_t)4 << 20)
#define THREADS_MAX 16U
#define WRAPPING_MAX 65536U /* bytes of a wrapped key */

/* ---- one pack ---- */

struct copying {
    struct backend *from, *to;
    const struct memory *memory; /* NULL: a plain one, or one whose key is not here */
    char (*packs)[MEMORY_PACK_NAME_LEN + 1];
    size_t n_packs;
    bool sealed;
    size_t next; /* atomic: the pack that nobody has taken */
    uint64_t *done;
    pthread_mutex_t lock; /* everything below */
    struct store_copied totals;
    enum rc rc; /* the first failure */
    struct err err;
};

static int by_offset(const void *a, const void *b)
{
    const struct memory_chunk *x = a, *y = b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Chunks of a pack by their place: those that the checkpoint refers to, vouched for by its
 * manifest, and of a readable pack those of others, vouched for by its index.  Of an encrypted pack
 * whose key is not here nothing is known: it is copied as it is, and verified by who has the key.
 */
static enum rc chunks_of(const struct copying *c, const char *pack, struct memory_chunk **out,
                         size_t *out_n, struct err *err)
{
    const struct memory none = {0}, *m = c->memory ? c->memory : &none;
    CLEANUP(pack_index_done) struct pack_index x = {0};
    uint64_t size = 0;
    size_t n = 0;
    enum rc rc = c->sealed ? RC_OK : pack_read_index(c->from, NULL, pack, &x, &size, err);
    if (rc)
        return rc;
    struct memory_chunk *list = mem_alloc((m->n_chunks + x.n_chunks + 1) * sizeof(*list));
    for (size_t i = 0; i < m->n_chunks; i++)
        if (strcmp(m->packs[m->chunks[i].pack].name, pack) == 0)
            list[n++] = m->chunks[i];
    for (size_t i = 0; i < x.n_chunks; i++)
        list[n++] = x.chunks[i];
    qsort(list, n, sizeof(*list), by_offset);
    *out = list;
    *out_n = n;
    return RC_OK;
}

/* Bytes offset..offset+len of the source, to the end of the upload. */
static enum rc pass(const struct copying *c, struct backend_object *from, struct backend_upload *to,
                    uint64_t end, uint8_t *data, struct err *err)
{
    while (to->size < end) {
        uint64_t left = end - to->size;
        size_t n = left < PIECE ? (size_t)left : PIECE;
        enum rc rc = backend_read(from, to->size, data, n, err);
        if (!rc)
            rc = backend_append(to, data, n, err);
        if (rc)
            return rc;
        if (c->done)
            (void)__atomic_fetch_add(c->done, n, __ATOMIC_RELAXED);
    }
    return RC_OK;
}

static enum rc damaged(const char *name, uint64_t offset, struct err *err)
{
    return err_set(err, RC_CORRUPT, "memory is damaged: chunk at byte %" PRIu64 " of pack '%s'",
                   offset, name);
}

/* The same chunk twice, from the map and from the index: they must agree. */
static enum rc pass_chunk(const struct copying *c, struct backend_object *from,
                          struct backend_upload *to, const struct memory_chunk *chunk,
                          const char *name, uint8_t *data, struct err *err)
{
    struct digest d;
    if (chunk->stored > PIECE || chunk->offset + chunk->stored > from->size)
        return damaged(name, chunk->offset, err);
    enum rc rc = backend_read(from, chunk->offset, data, chunk->stored, err);
    if (rc)
        return rc;
    digest_of(data, chunk->stored, &d);
    if (!digest_equal(&d, &chunk->digest))
        return damaged(name, chunk->offset, err);
    rc = backend_append(to, data, chunk->stored, err);
    if (!rc && c->done)
        (void)__atomic_fetch_add(c->done, chunk->stored, __ATOMIC_RELAXED);
    return rc;
}

static enum rc pass_pack(const struct copying *c, const char *name, struct backend_object *from,
                         struct backend_upload *to, struct err *err)
{
    CLEANUP(mem_freep) struct memory_chunk *chunks = NULL;
    CLEANUP(mem_freep) uint8_t *data = mem_alloc(PIECE);
    size_t n = 0;
    enum rc rc = chunks_of(c, name, &chunks, &n, err);
    for (size_t i = 0; !rc && i < n; i++) {
        bool again = i > 0 && chunks[i].offset == chunks[i - 1].offset;
        if (again && !digest_equal(&chunks[i].digest, &chunks[i - 1].digest))
            return damaged(name, chunks[i].offset, err);
        if (again)
            continue;
        if (chunks[i].offset < to->size)
            return damaged(name, chunks[i].offset, err);
        rc = pass(c, from, to, chunks[i].offset, data, err);
        if (!rc)
            rc = pass_chunk(c, from, to, &chunks[i], name, data, err);
    }
    return rc ? rc : pass(c, from, to, from->size, data, err);
}

static void count(struct copying *c, uint64_t bytes, bool there)
{
    (void)pthread_mutex_lock(&c->lock);
    *(there ? &c->totals.packs_there : &c->totals.packs) += 1;
    *(there ? &c->totals.bytes_there : &c->totals.bytes) += bytes;
    (void)pthread_mutex_unlock(&c->lock);
}

static enum rc copy_pack(struct copying *c, const char *name, struct err *err)
{
    char key[PACK_KEY_LEN];
    CLEANUP(backend_closep) struct backend_object *there = NULL;
    CLEANUP(backend_closep) struct backend_object *from = NULL;
    CLEANUP(backend_abortp) struct backend_upload *to = NULL;
    pack_key(name, key);
    enum rc rc = backend_open(c->to, key, &there, err);
    if (!rc) {
        count(c, there->size, true);
        return RC_OK;
    }
    if (rc == RC_NOT_FOUND)
        rc = backend_open(c->from, key, &from, err);
    if (!rc)
        rc = backend_begin(c->to, key, &to, err);
    if (!rc)
        rc = pass_pack(c, name, from, to, err);
    if (!rc)
        rc = backend_commit(to, err);
    bool raced = rc == RC_EXISTS; /* the same copy, elsewhere */
    if (from && (!rc || raced))
        count(c, from->size, raced);
    return raced ? RC_OK : rc;
}

/* ---- all packs ---- */

static void *copy_some(void *arg)
{
    struct copying *c = arg;
    for (;;) {
        struct err err = ERR_INIT;
        size_t i = __atomic_fetch_add(&c->next, 1, __ATOMIC_RELAXED);
        if (i >= c->n_packs || __atomic_load_n(&c->rc, __ATOMIC_RELAXED))
            return NULL;
        enum rc rc = copy_pack(c, c->packs[i], &err);
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

static enum rc copy_packs(struct copying *c, unsigned threads, struct err *err)
{
    pthread_t others[THREADS_MAX];
    unsigned started = 0;
    while (started + 1 < threads && started < THREADS_MAX && started + 1 < c->n_packs &&
           pthread_create(&others[started], NULL, copy_some, c) == 0)
        started++;
    (void)copy_some(c);
    for (unsigned i = 0; i < started; i++)
        (void)pthread_join(others[i], NULL);
    if (c->rc && err)
        *err = c->err;
    return c->rc;
}

/* The data key of an encrypted one, in all its wrappings: worth nothing without the key that
 * wraps. */
static enum rc copy_wrapping(void *arg, const char *key, uint64_t size, struct err *err)
{
    const struct copying *c = arg;
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    char data[WRAPPING_MAX];
    if (size > sizeof(data))
        return err_set(err, RC_CORRUPT, "'%s' is no wrapped key", key);
    enum rc rc = backend_open(c->from, key, &o, err);
    if (!rc)
        rc = backend_read(o, 0, data, size, err);
    if (!rc)
        rc = backend_put(c->to, key, data, size, err);
    return rc == RC_EXISTS ? RC_OK : rc;
}

static enum rc copy_keys(struct copying *c, const struct key_id *id, struct err *err)
{
    char hex[2 * KEYFILE_ID + 1], prefix[sizeof(KEYRING_PREFIX) + sizeof(hex)];
    hex_format(id->bytes, KEYFILE_ID, hex);
    (void)snprintf(prefix, sizeof(prefix), KEYRING_PREFIX "%s/", hex);
    return backend_list(c->from, prefix, copy_wrapping, c, err);
}

/* ---- files ---- */

/* As it lies there.  f: what it should be; NULL for a log, or what vouches for the manifest */
static enum rc copy_file(int from_dir, const char *name, const struct manifest_file *f, int to_dir,
                         struct err *err)
{
    CLEANUP(mem_freep) uint8_t *data = mem_alloc(PIECE);
    CLEANUP(fd_closep) int from = sys_openat(from_dir, name, O_RDONLY | O_NOFOLLOW, 0);
    if (from < 0)
        return err_sys(err, "open '%s'", name);
    CLEANUP(fd_closep)
    int to = sys_openat(to_dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (to < 0)
        return err_sys(err, "make '%s'", name);
    enum rc rc = RC_OK;
    for (size_t n = PIECE; !rc && n == PIECE;) {
        rc = sys_read_full(from, data, PIECE, &n, err);
        if (!rc)
            rc = sys_write_all(to, data, n, err);
    }
    struct digest d;
    uint64_t len = 0;
    if (!rc && f)
        rc = digest_file(to, 1, NULL, &len, &d, err);
    if (!rc && f && (len != f->size || !digest_equal(&d, &f->digest)))
        rc = err_set(err, RC_CORRUPT, "it is damaged: its bytes do not match the manifest");
    return rc ? err_ctx(err, rc, "'%s'", name) : RC_OK;
}

static enum rc copy_files(int from, const struct manifest *m, int to, struct err *err)
{
    CLEANUP(listing_done) struct listing files = {.n = 0};
    enum rc rc = listing_read(from, ".", &files, err);
    for (size_t i = 0; !rc && i < files.n; i++) {
        const char *name = files.name[i];
        struct stat st;
        if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            rc = err_sys(err, "'%s'", name);
        else if (S_ISREG(st.st_mode) && strcmp(name, DONE_NAME) != 0) /* it gets a new one */
            rc = copy_file(from, name, manifest_find(m, name), to, err);
    }
    return rc;
}

/* ---- one checkpoint ---- */

/* What is to be copied. */
struct original {
    struct store_entry *entry;
    struct buf text; /* of the manifest of the files as they lie there; empty: it has none */
    struct manifest manifest;
};

static void original_done(struct original *o)
{
    store_entry_freep(&o->entry);
    buf_done(&o->text);
    manifest_done(&o->manifest);
}

static void add_pack(struct copying *c, const char *name)
{
    c->packs = mem_realloc(c->packs, (c->n_packs + 1) * sizeof(*c->packs));
    memcpy(c->packs[c->n_packs++], name, sizeof(*c->packs));
}

static enum rc look(struct store *from, const char *id, struct original *o, struct copying *c,
                    struct err *err)
{
    const struct page_reader *pages = NULL;
    enum rc rc = store_find(from, id, &o->entry, err);
    if (!rc)
        rc = store_entry_fetch(o->entry, err);
    if (rc)
        return rc;
    rc = fs_read_file(store_entry_fd(o->entry), MANIFEST_NAME, MANIFEST_MAX, &o->text, err);
    if (rc == RC_NOT_FOUND)
        return RC_OK; /* the reference implementation writes none */
    if (!rc)
        rc = manifest_parse(buf_str(&o->text), o->text.len, &o->manifest, err);
    c->sealed = !rc && o->manifest.sealed;
    bool open = store_entry_unlocked(o->entry, NULL) == RC_OK;
    if (!rc && open)
        rc = store_entry_pages(o->entry, &pages, err);
    c->memory = !rc && pages ? page_reader_memory(pages) : NULL;
    for (size_t i = 0; c->memory && i < c->memory->n_packs; i++)
        add_pack(c, c->memory->packs[i].name);
    for (size_t i = 0; !rc && !open && i < o->manifest.n_packs; i++)
        add_pack(c, o->manifest.packs[i]);
    return rc;
}

/* Whether the other store has the same checkpoint, with all packs. */
static bool is_same(const struct original *o, const struct copying *c, struct store *to)
{
    CLEANUP(buf_done) struct buf text = {.max = MANIFEST_MAX};
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    const char *id = store_entry_id(o->entry);
    if (!o->text.len || store_find(to, id, &e, NULL) != RC_OK ||
        store_read_file(to, id, MANIFEST_NAME, MANIFEST_MAX, &text, NULL) != RC_OK ||
        text.len != o->text.len || memcmp(text.data, o->text.data, text.len) != 0)
        return false;
    for (size_t i = 0; i < c->n_packs; i++) {
        char key[PACK_KEY_LEN];
        CLEANUP(backend_closep) struct backend_object *there = NULL;
        pack_key(c->packs[i], key);
        if (backend_open(c->to, key, &there, NULL) != RC_OK)
            return false;
    }
    return true;
}

static enum rc copy(struct copying *c, const struct original *o, struct store *to, bool replace,
                    unsigned threads, struct err *err)
{
    struct store bare = *to; /* what is copied is encrypted and signed as it is */
    bare.vault = NULL;
    bare.clear_allowed = bare.clear_allowed || c->sealed;
    CLEANUP(store_hold_freep) struct store_hold *hold = NULL;
    CLEANUP(store_abortp) struct store_staging *g = NULL;
    bool encrypted = false;
    enum rc rc = bare.clear_allowed ? RC_OK : store_is_encrypted(to, &encrypted, err);
    if (!rc && encrypted)
        rc = err_set(err, RC_DENIED,
                     "it is readable, and those of the other store are encrypted; give "
                     "--unencrypted if it shall be readable there, too");
    if (!rc)
        rc = store_begin(&bare, store_entry_id(o->entry), !replace, &g, err);
    if (!rc && c->sealed)
        rc = copy_keys(c, &o->manifest.key, err);
    if (!rc && c->n_packs)
        rc = store_hold_packs(&bare, false, &hold, err);
    if (!rc)
        rc = copy_packs(c, threads, err);
    if (!rc)
        rc = copy_files(store_entry_fd(o->entry), &o->manifest, store_staging_fd(g), err);
    return rc ? rc : store_commit_copy(g, replace, err);
}

enum rc store_copy(struct store *from, const char *id, struct store *to, bool replace,
                   // NOLINTNEXTLINE(readability-non-const-parameter): counted up through the work
                   unsigned threads, uint64_t *done, struct store_copied *out, struct err *err)
{
    CLEANUP(original_done) struct original o = {.text = {.max = MANIFEST_MAX}};
    struct copying c = {.from = store_backend(from),
                        .to = store_backend(to),
                        .done = done,
                        .lock = PTHREAD_MUTEX_INITIALIZER};
    enum rc rc = look(from, id, &o, &c, err);
    if (!rc)
        c.totals.there = is_same(&o, &c, to);
    if (!rc && !c.totals.there)
        rc = copy(&c, &o, to, replace, threads, err);
    free(c.packs);
    (void)pthread_mutex_destroy(&c.lock);
    if (rc == RC_NO_SPACE && err && !strstr(err->msg, "; "))
        rc = err_set(err, rc,
                     "no space left for '%s' in %s; make room and copy again, which goes on where "
                     "this has ended, or `chrek gc` removes what came",
                     id, store_path(to));
    if (rc)
        return err_ctx(err, rc, "copy '%s' from %s to %s", id, store_path(from), store_path(to));
    *out = c.totals;
    return RC_OK;
}

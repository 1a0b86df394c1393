#include "store/scrub.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "store/pack.h"
#include "store/pack_check.h"
#include "store/page_scan.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 64U

struct packs {
    struct backend *backend;
    struct scrub_item *items;
    struct pack_index *indexes; /* of the items that are whole */
    size_t n;
    size_t next; /* atomic */
    uint64_t *done;
};

/* ---- packs, by threads ---- */

static enum rc add_pack(void *arg, const char *key, uint64_t size, struct err *err)
{
    struct packs *p = arg;
    const char *name = strrchr(key, '/') + 1;
    (void)err;
    if (strlen(name) != MEMORY_PACK_NAME_LEN)
        return RC_OK;
    if ((p->n & (p->n - 1)) == 0)
        p->items = mem_realloc(p->items, (p->n ? p->n * 2 : 1) * sizeof(*p->items));
    p->items[p->n++] = (struct scrub_item){.name = mem_strdup(name), .bytes = size};
    return RC_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct scrub_item *)a)->name, ((const struct scrub_item *)b)->name);
}

static void judge(struct scrub_item *i, enum rc rc, const struct err *why)
{
    i->rc = rc;
    i->why = rc ? mem_strdup(why->msg) : NULL;
}

static void *check_packs(void *arg)
{
    struct packs *p = arg;
    for (;;) {
        struct err why = ERR_INIT;
        size_t i = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED);
        if (i >= p->n)
            return NULL;
        enum rc rc = pack_check(p->backend, p->items[i].name, p->done, &p->indexes[i], &why);
        if (rc == RC_DENIED) /* an encrypted one: it is for who refers to it to say */
            rc = RC_OK;
        judge(&p->items[i], rc, &why);
    }
}

static enum rc scrub_packs(struct packs *p, unsigned threads, struct err *err)
{
    pthread_t others[THREADS_MAX];
    unsigned started = 0;
    enum rc rc = backend_list(p->backend, PACK_PREFIX, add_pack, p, err);
    if (rc)
        return rc;
    if (p->n)
        qsort(p->items, p->n, sizeof(*p->items), by_name);
    p->indexes = mem_zalloc((p->n + 1) * sizeof(*p->indexes));
    while (started + 1 < threads && started < THREADS_MAX &&
           pthread_create(&others[started], NULL, check_packs, p) == 0)
        started++;
    (void)check_packs(p);
    for (unsigned i = 0; i < started; i++)
        (void)pthread_join(others[i], NULL);
    return RC_OK;
}

static void packs_done(struct packs *p)
{
    for (size_t i = 0; i < p->n; i++) {
        if (p->indexes)
            pack_index_done(&p->indexes[i]);
        free(p->items[i].name);
        free(p->items[i].why);
    }
    free(p->indexes);
    free(p->items);
}

/* ---- checkpoints ---- */

/* Whether all chunks of a map are in packs that were found whole, just as it says. */
static bool is_vouched_for(const struct memory *m, const struct packs *p)
{
    for (size_t i = 0; i < m->n_chunks; i++) {
        struct scrub_item key = {.name = m->packs[m->chunks[i].pack].name};
        const struct scrub_item *pack = bsearch(&key, p->items, p->n, sizeof(key), by_name);
        if (!pack || pack->rc || !pack_has(&p->indexes[pack - p->items], &m->chunks[i]))
            return false;
    }
    return true;
}

static enum rc check_checkpoint(struct store *s, const struct packs *p, unsigned threads,
                                struct scrub_item *i, struct err *err)
{
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    const struct page_reader *pages = NULL;
    enum rc rc = store_find(s, i->name, &e, err);
    if (rc)
        return rc;
    const struct manifest *files = store_entry_manifest(e);
    for (size_t k = 0; files && k < files->n; k++)
        i->bytes += files->files[k].size;
    bool sealed = store_entry_metadata(e)->key != NULL;
    if (sealed && store_entry_unlocked(e, NULL) == RC_OK)
        return store_verify(e, STORE_ALL, threads, p->done, err);
    rc = store_verify(e, STORE_SMALL, threads, p->done, err);
    if (!rc)
        rc = store_verify(e, STORE_BIG, threads, p->done, err);
    if (!rc) /* of an encrypted one: that its memory cannot be read */
        rc = store_entry_pages(e, &pages, err);
    if (!rc && pages && !is_vouched_for(page_reader_memory(pages), p))
        rc = page_scan_verify(pages, p->done, err);
    return rc;
}

/* Just deleted, or an object that is somebody else's. */
static bool is_absent(struct store *s, const char *id)
{
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    return store_find(s, id, &e, NULL) == RC_NOT_FOUND;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): `done` is counted up through the work */
enum rc store_scrub(struct store *s, unsigned threads, uint64_t *done, struct scrub *out,
                    struct err *err)
{
    CLEANUP(packs_done) struct packs p = {.backend = store_backend(s), .done = done};
    CLEANUP(scrub_done) struct scrub all = {0};
    char **ids = NULL;
    enum rc rc = scrub_packs(&p, threads, err);
    if (!rc)
        rc = store_list(s, &ids, err);
    if (rc)
        return rc;
    size_t n = 0;
    while (ids[n])
        n++;
    all.checkpoints = mem_zalloc((n + 1) * sizeof(*all.checkpoints));
    for (char **id = ids; *id; id++) {
        struct err why = ERR_INIT;
        if (is_absent(s, *id))
            continue;
        struct scrub_item *i = &all.checkpoints[all.n_checkpoints++];
        i->name = mem_strdup(*id);
        rc = check_checkpoint(s, &p, threads, i, &why);
        if (rc == RC_UNSUPPORTED) /* nobody has written down what it should be */
            rc = RC_OK;
        judge(i, rc, &why);
        all.damaged += rc != RC_OK;
    }
    store_free_ids(ids);
    all.packs = STEAL(p.items);
    all.n_packs = p.n;
    for (size_t i = 0; i < all.n_packs; i++) {
        pack_index_done(&p.indexes[i]);
        all.damaged += all.packs[i].rc != RC_OK;
    }
    p.n = 0;
    *out = all;
    all = (struct scrub){0};
    return RC_OK;
}

void scrub_done(struct scrub *s)
{
    for (size_t i = 0; i < s->n_checkpoints; i++) {
        free(s->checkpoints[i].name);
        free(s->checkpoints[i].why);
    }
    for (size_t i = 0; i < s->n_packs; i++) {
        free(s->packs[i].name);
        free(s->packs[i].why);
    }
    free(s->checkpoints);
    free(s->packs);
    *s = (struct scrub){0};
}

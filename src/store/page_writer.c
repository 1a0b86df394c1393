#include "store/page_writer.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "store/pack.h"
#include "store/page_table.h"

#include <blake3.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define BUFFERS_MIN 32U
#define THREADS_MAX 64U
#define REMEMBER_MIN ((uint64_t)512 << 10) /* pages; a million of them take a table of 64 MiB */
#define LEARN_PACKS_MIN 96U
#define LEARN_PACK_PAGES 8192U /* one more pack for each of these that are expected */
#define REF_ZERO UINT64_MAX
#define REF_NONE (UINT64_MAX - 1)
#define HUGE_PAGE ((size_t)2 << 20)

/* Where a page of a stream lies: number of a chunk, and in the low bits the page inside it. */
typedef uint64_t ref;

struct page_input {
    uint32_t id;
    bool draft;
    struct page_likes likes; /* constant when pages are given */
    ref *refs;               /* one for each page; a block's are its worker's until it is stored */
    uint64_t pages;
};

struct page_block {
    struct page_block *next;
    uint8_t *pages;
    struct page_input *input;
    uint64_t first; /* page of the input */
    unsigned n;
};

/* Pages of a stream that are those of a draft. */
struct loan {
    struct page_input *to;
    const struct page_input *from;
    uint64_t first, at, n;
};

/* A chunk that is being filled. */
struct open_chunk {
    uint8_t *pages;
    struct page_name names[MEMORY_CHUNK_PAGES];
    unsigned filled;
    uint32_t number;
    struct page_place *bases; /* of changes: of each page; else NULL */
    blake3_hasher whole;      /* of what they are changes to */
};

/* A thread that names, finds and packs. */
struct worker {
    struct page_writer *writer;
    pthread_t thread;
    bool running;
    struct pack_writer *pack;
    uint32_t pack_number;
    struct open_chunk open, changes;
    struct page_look look; /* at the pages of a block */
};

struct page_writer {
    struct page_writer_options options;
    uint8_t *arena;
    size_t arena_len;
    struct page_block *blocks;

    pthread_mutex_t lock; /* everything below */
    pthread_cond_t work, room;
    struct page_block *free, *queue, **queue_end;
    size_t n_used; /* blocks that are not free */
    bool held, ending;
    enum rc rc; /* the first failure */
    struct err err;
    struct page_table table;
    char (*learn)[MEMORY_PACK_NAME_LEN + 1]; /* packs to look into, best first */
    size_t n_learn, next_learn, known;       /* known: pages of the store that were learned */
    unsigned learning;                       /* threads that have not finished with it */
    size_t learned_packs;                    /* the first so many of `packs` were there before */
    struct memory_pack *packs;
    struct memory_chunk *chunks;
    struct page_place **bases; /* of each chunk that holds changes, its pages'; else NULL */
    size_t n_packs, n_chunks, chunk_room;
    struct page_input **inputs, **drafts;
    size_t n_inputs, n_drafts;
    struct loan *loans;
    size_t n_loans;
    struct page_writer_totals totals;

    uint64_t counter; /* atomic */
    struct worker *workers;
};

static void fail_with(struct page_writer *w, enum rc rc, const struct err *why)
{
    (void)pthread_mutex_lock(&w->lock);
    if (!w->rc) {
        w->rc = rc;
        w->err = *why;
    }
    (void)pthread_cond_broadcast(&w->work);
    (void)pthread_cond_broadcast(&w->room);
    (void)pthread_mutex_unlock(&w->lock);
}

/* ---- numbers of packs and chunks; the lock is held ---- */

static uint32_t new_pack(struct page_writer *w, const char *name, uint64_t size)
{
    w->packs = mem_realloc(w->packs, (w->n_packs + 1) * sizeof(*w->packs));
    struct memory_pack *p = &w->packs[w->n_packs];
    memcpy(p->name, name, sizeof(p->name));
    p->size = size;
    return (uint32_t)w->n_packs++;
}

static uint32_t new_chunk(struct page_writer *w)
{
    if (w->n_chunks == w->chunk_room) {
        w->chunk_room = w->chunk_room ? w->chunk_room * 2 : 1024;
        w->chunks = mem_realloc(w->chunks, w->chunk_room * sizeof(*w->chunks));
        w->bases = mem_realloc(w->bases, w->chunk_room * sizeof(void *));
    }
    w->chunks[w->n_chunks] = (struct memory_chunk){.pages = 0};
    w->bases[w->n_chunks] = NULL;
    return (uint32_t)w->n_chunks++;
}

/* ---- what the store has ---- */

struct candidates {
    struct page_writer *w;
    size_t preferred; /* in the list already */
};

static void add_name(struct page_writer *w, const char *name)
{
    if ((w->n_learn & (w->n_learn - 1)) == 0)
        w->learn = mem_realloc(w->learn, (w->n_learn ? w->n_learn * 2 : 1) * sizeof(*w->learn));
    memcpy(w->learn[w->n_learn++], name, sizeof(*w->learn));
}

static bool is_listed(const struct page_writer *w, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(w->learn[i], name) == 0)
            return true;
    return false;
}

static enum rc consider_pack(void *arg, const char *key, uint64_t size, struct err *err)
{
    const struct candidates *c = arg;
    const char *name = strrchr(key, '/') + 1;
    (void)size;
    (void)err;
    if (strlen(name) == MEMORY_PACK_NAME_LEN && !is_listed(c->w, c->preferred, name))
        add_name(c->w, name);
    return RC_OK;
}

static int newest_first(const void *a, const void *b)
{
    return pack_newer(b, a);
}

static enum rc choose_packs(struct page_writer *w, struct err *err)
{
    const struct page_writer_options *o = &w->options;
    size_t max = o->packs_max ? o->packs_max
                              : LEARN_PACKS_MIN + (size_t)(o->expect_pages / LEARN_PACK_PAGES);
    for (size_t i = 0; i < o->n_prefer && w->n_learn < max; i++)
        if (!is_listed(w, w->n_learn, o->prefer[i]))
            add_name(w, o->prefer[i]);
    struct candidates c = {w, w->n_learn};
    enum rc rc =
        w->n_learn < max ? backend_list(o->backend, PACK_PREFIX, consider_pack, &c, err) : RC_OK;
    if (w->n_learn > c.preferred)
        qsort(w->learn + c.preferred, w->n_learn - c.preferred, sizeof(*w->learn), newest_first);
    w->n_learn = w->n_learn < max ? w->n_learn : max;
    return rc;
}

/* What the past refers to, vouched for by its manifest: the first packs and chunks, by the numbers
 * that they have there. */
static void take_past(struct page_writer *w)
{
    const struct memory *m = page_past_memory(w->options.past);
    for (size_t i = 0; i < m->n_packs; i++)
        (void)new_pack(w, m->packs[i].name, m->packs[i].size);
    for (size_t i = 0; i < m->n_chunks; i++) {
        uint32_t chunk = new_chunk(w);
        w->chunks[chunk] = m->chunks[i];
        if (memory_has_changes(&m->chunks[i]))
            w->bases[chunk] = mem_alloc(m->chunks[i].pages * sizeof(struct page_place));
    }
    for (const struct memory_base *b = m->bases; b < m->bases + m->n_bases; b++)
        for (uint32_t k = 0; k < b->pages; k++)
            w->bases[b->chunk][b->at + k] = (struct page_place){b->of, b->of_at + k};
}

/* The number of a chunk that an index has, UINT32_MAX: it is of no use.  Of changes an index does
 * not say what they are changes of, so only those of the past are. */
static uint32_t learn_chunk(struct page_writer *w, const struct memory_chunk *c)
{
    uint32_t chunk = w->options.past ? page_past_chunk(w->options.past, c) : UINT32_MAX;
    if (chunk == UINT32_MAX && !memory_has_changes(c)) {
        chunk = new_chunk(w);
        w->chunks[chunk] = *c;
    }
    return chunk;
}

/* The lock is held. */
static void learn_index(struct page_writer *w, const char *name, uint64_t size,
                        const struct pack_index *x)
{
    uint32_t pack = w->options.past ? page_past_pack(w->options.past, name) : UINT32_MAX;
    if (pack == UINT32_MAX)
        pack = new_pack(w, name, size);
    const struct page_name *at = x->names;
    for (size_t i = 0; i < x->n_chunks && w->known < w->options.known_max; i++) {
        struct memory_chunk c = x->chunks[i];
        c.pack = pack;
        uint32_t chunk = learn_chunk(w, &c);
        w->known += c.pages;
        for (uint32_t k = 0; k < c.pages; k++, at++)
            if (chunk != UINT32_MAX && !page_table_find(&w->table, at))
                page_table_add(&w->table, at, (struct page_place){chunk, k});
    }
}

/* What one thread learns; then it waits for the others. */
static void learn(struct page_writer *w)
{
    (void)pthread_mutex_lock(&w->lock);
    while (!w->rc && w->next_learn < w->n_learn && w->known < w->options.known_max) {
        CLEANUP(pack_index_done) struct pack_index x = {0};
        const char *name = w->learn[w->next_learn++];
        uint64_t size = 0;
        (void)pthread_mutex_unlock(&w->lock);
        bool good =
            pack_read_index(w->options.backend, w->options.domain, name, &x, &size, NULL) == RC_OK;
        (void)pthread_mutex_lock(&w->lock);
        if (good)
            learn_index(w, name, size, &x);
    }
    if (--w->learning == 0)
        w->learned_packs = w->n_packs;
    (void)pthread_cond_broadcast(&w->work);
    (void)pthread_mutex_unlock(&w->lock);
}

/* ---- workers ---- */

static enum rc open_pack(struct worker *k, struct err *err)
{
    struct page_writer *w = k->writer;
    enum rc rc = pack_begin(w->options.backend, w->options.domain, &k->pack, err);
    if (rc)
        return rc;
    (void)pthread_mutex_lock(&w->lock);
    k->pack_number = new_pack(w, pack_name(k->pack), 0);
    (void)pthread_mutex_unlock(&w->lock);
    return RC_OK;
}

static enum rc close_pack(struct worker *k, struct err *err)
{
    struct page_writer *w = k->writer;
    if (!k->pack)
        return RC_OK;
    enum rc rc = pack_commit(k->pack, err);
    (void)pthread_mutex_lock(&w->lock);
    w->packs[k->pack_number].size = pack_size(k->pack);
    w->totals.written += pack_size(k->pack);
    (void)pthread_mutex_unlock(&w->lock);
    pack_abortp(&k->pack);
    return rc;
}

/* Pack an open chunk, whose pages are `pages`. */
static enum rc seal(struct worker *k, struct open_chunk *o, const uint8_t *pages, struct err *err)
{
    struct page_writer *w = k->writer;
    struct memory_chunk c;
    struct digest whole;
    enum rc rc = o->filled && !k->pack ? open_pack(k, err) : RC_OK;
    if (rc || !o->filled)
        return rc;
    if (o->bases)
        blake3_hasher_finalize(&o->whole, whole.bytes, DIGEST_LEN);
    rc = pack_add(k->pack, w->options.codec, pages, o->names, o->filled, o->bases ? &whole : NULL,
                  &c, err);
    if (rc)
        return rc;
    c.pack = k->pack_number;
    (void)pthread_mutex_lock(&w->lock);
    w->chunks[o->number] = c;
    (void)pthread_mutex_unlock(&w->lock);
    o->filled = 0;
    return pack_is_full(k->pack) ? close_pack(k, err) : RC_OK;
}

static bool is_zero(const uint8_t *page)
{
    const uint64_t *word = (const uint64_t *)(const void *)page;
    if (word[0] | word[MEMORY_PAGE / 8 - 1])
        return false;
    return memcmp(page, page + 8, MEMORY_PAGE - 8) == 0;
}

/* A place in an open chunk, which has room; the lock is held. */
static ref take_place(struct page_writer *w, struct open_chunk *o, const struct page_name *name)
{
    if (o->filled == 0)
        o->number = new_chunk(w);
    o->names[o->filled] = *name;
    page_table_add(&w->table, name, (struct page_place){o->number, o->filled});
    return (ref)o->number << 8 | o->filled++;
}

static ref take_change(struct worker *k, const struct page_block *b, const struct page_name *name)
{
    struct open_chunk *o = &k->changes;
    ref r = take_place(k->writer, o, name);
    if (o->filled == 1) {
        blake3_hasher_init(&o->whole);
        o->bases = mem_alloc(MEMORY_CHUNK_PAGES * sizeof(*o->bases));
        k->writer->bases[o->number] = o->bases;
    }
    k->writer->totals.changed += !b->input->draft;
    return r;
}

/* Find out which pages that are not known are changes of earlier ones. */
static void look_back(struct worker *k, const struct page_block *b, const struct page_name *names)
{
    struct page_writer *w = k->writer;
    bool wanted[MEMORY_CHUNK_PAGES], any = false;
    memset(k->look.small, 0, sizeof(k->look.small));
    if (!b->input->likes.n)
        return;
    (void)pthread_mutex_lock(&w->lock);
    for (unsigned i = 0; i < b->n; i++) {
        wanted[i] =
            b->input->refs[b->first + i] != REF_ZERO && !page_table_find(&w->table, &names[i]);
        any = any || wanted[i];
    }
    (void)pthread_mutex_unlock(&w->lock);
    if (any)
        page_look(&k->look, w->options.past, &b->input->likes, b->first, b->pages, b->n, wanted);
}

/* Pages of a block that have got places in an open chunk, one after another. */
struct placed {
    uint8_t list[MEMORY_CHUNK_PAGES];
    unsigned n;
};

/* Refer to the pages from `*at` on until an open chunk is full. */
static void place_pages(struct worker *k, const struct page_block *b, const struct page_name *names,
                        unsigned *at, struct placed *fresh, struct placed *changed)
{
    struct page_writer *w = k->writer;
    (void)pthread_mutex_lock(&w->lock);
    ref *refs = b->input->refs + b->first;
    for (; *at < b->n && k->open.filled < MEMORY_CHUNK_PAGES &&
           k->changes.filled < MEMORY_CHUNK_PAGES;
         ++*at) {
        if (refs[*at] == REF_ZERO)
            continue;
        const struct page_name *name = &names[*at];
        const struct page_place *known = page_table_find(&w->table, name);
        w->totals.known += known != NULL && !b->input->draft;
        if (known) {
            refs[*at] = (ref)known->chunk << 8 | known->page;
        } else if (k->look.small[*at]) {
            refs[*at] = take_change(k, b, name);
            changed->list[changed->n++] = (uint8_t)*at;
        } else {
            refs[*at] = take_place(w, &k->open, name);
            fresh->list[fresh->n++] = (uint8_t)*at;
        }
    }
    (void)pthread_mutex_unlock(&w->lock);
}

/* Others may refer to a place before its page is there: they only say where it will be. */
static enum rc fill_chunk(struct worker *k, const struct page_block *b, const struct placed *fresh,
                          struct err *err)
{
    struct open_chunk *o = &k->open;
    if (fresh->n == MEMORY_CHUNK_PAGES) /* a whole block: packed from where it is */
        return seal(k, o, b->pages, err);
    uint8_t *to = o->pages + (o->filled - fresh->n) * MEMORY_PAGE;
    for (unsigned i = 0; i < fresh->n; i++, to += MEMORY_PAGE)
        memcpy(to, b->pages + fresh->list[i] * MEMORY_PAGE, MEMORY_PAGE);
    return o->filled == MEMORY_CHUNK_PAGES ? seal(k, o, o->pages, err) : RC_OK;
}

static enum rc fill_changes(struct worker *k, const struct page_block *b,
                            const struct placed *changed, struct err *err)
{
    struct open_chunk *o = &k->changes;
    for (unsigned i = 0, at = o->filled - changed->n; i < changed->n; i++, at++) {
        unsigned page = changed->list[i];
        blake3_hasher_update(&o->whole, b->pages + page * MEMORY_PAGE, MEMORY_PAGE);
        memcpy(o->pages + at * MEMORY_PAGE, k->look.changes + page * MEMORY_PAGE, MEMORY_PAGE);
        o->bases[at] = k->look.bases[page];
    }
    return o->filled == MEMORY_CHUNK_PAGES ? seal(k, o, o->pages, err) : RC_OK;
}

/* Names of the pages that are not zero; these have REF_ZERO afterwards. */
static unsigned name_pages(const struct worker *k, const struct page_block *b,
                           struct page_name *names)
{
    const void *pages[MEMORY_CHUNK_PAGES];
    struct page_name list[MEMORY_CHUNK_PAGES];
    ref *refs = b->input->refs + b->first;
    unsigned n = 0;
    for (unsigned i = 0; i < b->n; i++) {
        const uint8_t *page = b->pages + i * MEMORY_PAGE;
        refs[i] = is_zero(page) ? REF_ZERO : REF_NONE;
        if (refs[i] != REF_ZERO)
            pages[n++] = page;
    }
    page_name_all(k->writer->options.domain, pages, n, list);
    for (unsigned i = 0, at = 0; i < b->n; i++)
        if (refs[i] != REF_ZERO)
            names[i] = list[at++];
    return b->n - n;
}

static enum rc store_block(struct worker *k, const struct page_block *b, struct err *err)
{
    struct page_writer *w = k->writer;
    struct page_name names[MEMORY_CHUNK_PAGES];
    unsigned zeros = name_pages(k, b, names);
    (void)pthread_mutex_lock(&w->lock);
    w->totals.pages += b->input->draft ? 0 : b->n;
    w->totals.zero += b->input->draft ? 0 : zeros;
    (void)pthread_mutex_unlock(&w->lock);
    look_back(k, b, names);
    for (unsigned at = 0; at < b->n;) {
        struct placed fresh = {.n = 0}, changed = {.n = 0};
        place_pages(k, b, names, &at, &fresh, &changed);
        enum rc rc = fill_chunk(k, b, &fresh, err);
        if (!rc)
            rc = fill_changes(k, b, &changed, err);
        if (rc)
            return rc;
    }
    return RC_OK;
}

/* The next block to store, NULL when there will be none. */
static struct page_block *next_block(struct page_writer *w)
{
    (void)pthread_mutex_lock(&w->lock);
    while (!w->rc && (w->learning || (!w->ending && (!w->queue || (w->held && w->free)))))
        (void)pthread_cond_wait(&w->work, &w->lock);
    struct page_block *b = w->rc ? NULL : w->queue;
    if (b) {
        w->queue = b->next;
        if (!w->queue)
            w->queue_end = &w->queue;
    }
    (void)pthread_mutex_unlock(&w->lock);
    return b;
}

static void give_back(struct page_writer *w, struct page_block *b)
{
    (void)pthread_mutex_lock(&w->lock);
    b->next = w->free;
    w->free = b;
    w->n_used--;
    (void)pthread_cond_signal(&w->room);
    (void)pthread_mutex_unlock(&w->lock);
}

static enum rc failure(struct page_writer *w)
{
    (void)pthread_mutex_lock(&w->lock);
    enum rc rc = w->rc;
    (void)pthread_mutex_unlock(&w->lock);
    return rc;
}

static void *work(void *arg)
{
    struct worker *k = arg;
    struct err err = ERR_INIT;
    enum rc rc = RC_OK;
    learn(k->writer);
    for (struct page_block *b; !rc && (b = next_block(k->writer));) {
        rc = store_block(k, b, &err);
        give_back(k->writer, b);
    }
    if (!rc && !failure(k->writer))
        rc = seal(k, &k->open, k->open.pages, &err);
    if (!rc && !failure(k->writer))
        rc = seal(k, &k->changes, k->changes.pages, &err);
    if (!rc && !failure(k->writer))
        rc = close_pack(k, &err);
    if (rc)
        fail_with(k->writer, rc, &err);
    return NULL;
}

/* ---- input ---- */

static struct page_input *new_input(uint32_t id, uint64_t pages)
{
    struct page_input *in = mem_zalloc(sizeof(*in));
    *in = (struct page_input){.id = id, .pages = pages};
    in->refs = mem_alloc((pages + 1) * sizeof(*in->refs));
    for (uint64_t i = 0; i < pages; i++)
        in->refs[i] = REF_NONE;
    return in;
}

enum rc page_writer_input(struct page_writer *w, uint32_t id, uint64_t pages,
                          struct page_input **out, struct err *err)
{
    struct page_input *in = NULL;
    if (pages > PAGE_STREAM_MAX)
        return err_set(err, RC_TOO_BIG, "page image %u of %ju pages", id, (uintmax_t)pages);
    (void)pthread_mutex_lock(&w->lock);
    bool there = false;
    for (size_t i = 0; i < w->n_inputs; i++)
        there = there || w->inputs[i]->id == id;
    if (!there) {
        in = new_input(id, pages);
        w->inputs = mem_realloc(w->inputs, (w->n_inputs + 1) * sizeof(void *));
        w->inputs[w->n_inputs++] = in;
        *out = in;
    }
    (void)pthread_mutex_unlock(&w->lock);
    return there ? err_set(err, RC_EXISTS, "page image %u comes twice", id) : RC_OK;
}

enum rc page_writer_draft(struct page_writer *w, uint64_t pages, struct page_input **out,
                          struct err *err)
{
    if (pages > PAGE_STREAM_MAX)
        return err_set(err, RC_TOO_BIG, "%ju pages to be read ahead", (uintmax_t)pages);
    struct page_input *in = new_input(0, pages);
    in->draft = true;
    (void)pthread_mutex_lock(&w->lock);
    w->drafts = mem_realloc(w->drafts, (w->n_drafts + 1) * sizeof(void *));
    w->drafts[w->n_drafts++] = in;
    (void)pthread_mutex_unlock(&w->lock);
    *out = in;
    return RC_OK;
}

void page_writer_like(const struct page_writer *w, struct page_input *in, uint64_t first,
                      uint64_t n, uint32_t stream, uint64_t at)
{
    if (w->options.past)
        page_likes_add(&in->likes, w->options.past, first, n, stream, at);
}

void page_writer_refer(struct page_writer *w, struct page_input *in, uint64_t first, uint64_t n,
                       const struct page_input *draft, uint64_t at)
{
    (void)pthread_mutex_lock(&w->lock);
    if ((w->n_loans & (w->n_loans - 1)) == 0)
        w->loans = mem_realloc(w->loans, (w->n_loans ? w->n_loans * 2 : 1) * sizeof(*w->loans));
    w->loans[w->n_loans++] = (struct loan){in, draft, first, at, n};
    (void)pthread_mutex_unlock(&w->lock);
    (void)__atomic_fetch_add(&w->counter, n * MEMORY_PAGE, __ATOMIC_RELAXED);
}

struct page_block *page_writer_take(struct page_writer *w, struct err *err)
{
    (void)pthread_mutex_lock(&w->lock);
    while (!w->free && !w->rc) {
        (void)pthread_cond_broadcast(&w->work); /* held or not: there is no room left */
        (void)pthread_cond_wait(&w->room, &w->lock);
    }
    struct page_block *b = w->rc ? NULL : w->free;
    if (b) {
        w->free = b->next;
        w->n_used++;
    } else if (err)
        *err = w->err;
    (void)pthread_mutex_unlock(&w->lock);
    return b;
}

void *page_block_data(struct page_block *b)
{
    return b->pages;
}

void page_writer_give(struct page_writer *w, struct page_block *b, struct page_input *in,
                      uint64_t first, unsigned n)
{
    if (n == 0) {
        give_back(w, b);
        return;
    }
    (void)__atomic_fetch_add(&w->counter, n * MEMORY_PAGE, __ATOMIC_RELAXED);
    (void)pthread_mutex_lock(&w->lock);
    *b = (struct page_block){.pages = b->pages, .input = in, .first = first, .n = n};
    *w->queue_end = b;
    w->queue_end = &b->next;
    if (!w->held || !w->free) /* who waits for a buffer has looked before this one was there */
        (void)pthread_cond_signal(&w->work);
    (void)pthread_mutex_unlock(&w->lock);
}

enum rc page_writer_file(struct page_writer *w, uint32_t id, int fd, struct page_input **out,
                         struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys(err, "page image %u", id);
    if ((uint64_t)st.st_size % MEMORY_PAGE)
        return err_set(err, RC_CORRUPT, "page image %u ends inside a page", id);
    return page_writer_input(w, id, (uint64_t)st.st_size / MEMORY_PAGE, out, err);
}

enum rc page_writer_read(struct page_writer *w, struct page_input *in, int fd, struct err *err)
{
    enum rc rc = RC_OK;
    for (uint64_t at = 0; !rc && at < in->pages;) {
        uint64_t left = in->pages - at;
        unsigned n = left < MEMORY_CHUNK_PAGES ? (unsigned)left : MEMORY_CHUNK_PAGES;
        size_t got = 0;
        struct page_block *b = page_writer_take(w, err);
        if (!b)
            return failure(w);
        rc = sys_read_full(fd, b->pages, n * MEMORY_PAGE, &got, err);
        if (!rc && got != n * MEMORY_PAGE)
            rc = err_set(err, RC_CORRUPT, "page image %u has become shorter", in->id);
        page_writer_give(w, b, in, at, rc ? 0 : n);
        at += n;
    }
    return rc;
}

const uint64_t *page_writer_counter(const struct page_writer *w)
{
    return &w->counter;
}

void page_writer_hold(struct page_writer *w, bool hold)
{
    (void)pthread_mutex_lock(&w->lock);
    w->held = hold;
    (void)pthread_cond_broadcast(&w->work);
    (void)pthread_mutex_unlock(&w->lock);
}

enum rc page_writer_drain(struct page_writer *w, struct err *err)
{
    (void)pthread_mutex_lock(&w->lock);
    while (w->n_used > 0 && !w->rc)
        (void)pthread_cond_wait(&w->room, &w->lock);
    enum rc rc = w->rc;
    if (rc && err)
        *err = w->err;
    (void)pthread_mutex_unlock(&w->lock);
    return rc;
}

/* ---- begin ---- */

static enum rc make_buffers(struct page_writer *w, struct err *err)
{
    size_t n = w->options.buffer_bytes / MEMORY_CHUNK;
    n = n < BUFFERS_MIN ? BUFFERS_MIN : n;
    w->arena_len = n * MEMORY_CHUNK + HUGE_PAGE;
    void *arena = mmap(NULL, w->arena_len, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED)
        return err_sys(err, "get %zu MiB of memory", w->arena_len >> 20);
    w->arena = arena;
    (void)madvise(w->arena, w->arena_len, MADV_HUGEPAGE);
    (void)madvise(w->arena, w->arena_len, MADV_DONTDUMP); /* other people's secrets */
    (void)madvise(w->arena, w->arena_len, MADV_POPULATE_WRITE);
    w->blocks = mem_zalloc(n * sizeof(*w->blocks));
    uintptr_t begin = ((uintptr_t)w->arena + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    for (size_t i = n; i-- > 0;) {
        w->blocks[i].pages =
            (uint8_t *)begin + i * MEMORY_CHUNK; // NOLINT(performance-no-int-to-ptr)
        w->blocks[i].next = w->free;
        w->free = &w->blocks[i];
    }
    return RC_OK;
}

static enum rc start_workers(struct page_writer *w, struct err *err)
{
    unsigned n = w->options.threads < 1 ? 1 : w->options.threads;
    w->options.threads = n > THREADS_MAX ? THREADS_MAX : n;
    w->workers = mem_zalloc(w->options.threads * sizeof(*w->workers));
    w->learning = w->options.threads;
    for (unsigned i = 0; i < w->options.threads; i++) {
        struct worker *k = &w->workers[i];
        k->writer = w;
        k->open.pages = mem_alloc(MEMORY_CHUNK);
        k->changes.pages = mem_alloc(MEMORY_CHUNK);
        k->look = (struct page_look)PAGE_LOOK_INIT;
        k->running = pthread_create(&k->thread, NULL, work, k) == 0;
        if (!k->running)
            return err_set(err, RC_IO, "no thread to store pages");
    }
    return RC_OK;
}

enum rc page_writer_open(const struct page_writer_options *o, struct page_writer **out,
                         struct err *err)
{
    CLEANUP(page_writer_freep) struct page_writer *w = mem_zalloc(sizeof(*w));
    uint64_t remember = o->expect_pages > REMEMBER_MIN ? o->expect_pages : REMEMBER_MIN;
    w->options = *o;
    w->options.known_max = o->known_max ? o->known_max : remember;
    w->table.max = o->table_max ? o->table_max : w->options.known_max + remember;
    w->queue_end = &w->queue;
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_cond_init(&w->work, NULL);
    (void)pthread_cond_init(&w->room, NULL);
    if (o->alone)
        w->options.past = NULL;
    if (w->options.past)
        take_past(w);
    enum rc rc = o->alone ? RC_OK : choose_packs(w, err);
    if (!rc)
        rc = make_buffers(w, err);
    if (!rc)
        rc = start_workers(w, err);
    if (!rc)
        *out = STEAL(w);
    return rc;
}

static void stop_workers(struct page_writer *w)
{
    (void)pthread_mutex_lock(&w->lock);
    w->ending = true;
    (void)pthread_cond_broadcast(&w->work);
    (void)pthread_mutex_unlock(&w->lock);
    for (unsigned i = 0; w->workers && i < w->options.threads; i++) {
        struct worker *k = &w->workers[i];
        if (k->running)
            (void)pthread_join(k->thread, NULL);
        k->running = false;
    }
}

/* ---- the end: references become extents, what is not referred to goes ---- */

static bool continues(const struct memory_extent *e, ref r)
{
    if (e->pages == UINT32_MAX)
        return false;
    if (r == REF_ZERO || e->chunk == MEMORY_ZERO)
        return r == REF_ZERO && e->chunk == MEMORY_ZERO;
    return r >> 8 == e->chunk && (r & 0xff) == (uint64_t)e->at + e->pages;
}

static enum rc add_stream(const struct page_input *in, struct memory *m, size_t *room,
                          struct err *err)
{
    struct memory_stream *s = &m->streams[m->n_streams++];
    *s = (struct memory_stream){.id = in->id, .pages = in->pages, .first = m->n_extents};
    for (uint64_t i = 0; i < in->pages; i++) {
        ref r = in->refs[i];
        if (r == REF_NONE)
            return err_set(err, RC_INVALID, "page %ju of page image %u was not given", (uintmax_t)i,
                           in->id);
        if (s->n && continues(&m->extents[m->n_extents - 1], r)) {
            m->extents[m->n_extents - 1].pages++;
            continue;
        }
        if (m->n_extents == *room) {
            *room = *room ? *room * 2 : 1024;
            m->extents = mem_realloc(m->extents, *room * sizeof(*m->extents));
        }
        bool zero = r == REF_ZERO;
        m->extents[m->n_extents++] =
            (struct memory_extent){.page = i,
                                   .pages = 1,
                                   .chunk = zero ? MEMORY_ZERO : (uint32_t)(r >> 8),
                                   .at = zero ? 0 : (uint32_t)(r & 0xff)};
        s->n++;
    }
    return RC_OK;
}

/* The workers have ended: what drafts hold is known. */
static void take_loans(struct page_writer *w)
{
    for (size_t i = 0; i < w->n_loans; i++) {
        const struct loan *l = &w->loans[i];
        for (uint64_t k = 0; k < l->n; k++) {
            ref r = l->from->refs[l->at + k];
            l->to->refs[l->first + k] = r;
            w->totals.zero += r == REF_ZERO;
            if (r < REF_NONE && w->chunks[r >> 8].pack < w->learned_packs)
                w->totals.known++;
            else if (r < REF_NONE && w->bases[r >> 8])
                w->totals.changed++;
        }
        w->totals.pages += l->n;
    }
}

/* New numbers of chunks and packs, UINT32_MAX: not used so far. */
struct renumber {
    const struct page_writer *w;
    struct memory *m;
    uint32_t *chunk, *pack;
    size_t base_room;
};

static uint32_t keep_chunk(struct renumber *r, uint32_t chunk)
{
    const struct page_writer *w = r->w;
    struct memory *m = r->m;
    struct memory_chunk c = w->chunks[chunk];
    if (r->chunk[chunk] != UINT32_MAX)
        return r->chunk[chunk];
    if (r->pack[c.pack] == UINT32_MAX) {
        m->packs[m->n_packs] = w->packs[c.pack];
        r->pack[c.pack] = (uint32_t)m->n_packs++;
    }
    c.pack = r->pack[c.pack];
    m->chunks[m->n_chunks] = c;
    r->chunk[chunk] = (uint32_t)m->n_chunks++;
    return r->chunk[chunk];
}

static void add_base(struct renumber *r, struct memory_base b)
{
    struct memory *m = r->m;
    struct memory_base *last = m->n_bases ? &m->bases[m->n_bases - 1] : NULL;
    if (last && last->chunk == b.chunk && last->of == b.of &&
        last->of_at + last->pages == b.of_at) {
        last->pages++;
        return;
    }
    if (m->n_bases == r->base_room) {
        r->base_room = r->base_room ? r->base_room * 2 : 256;
        m->bases = mem_realloc(m->bases, r->base_room * sizeof(*m->bases));
    }
    m->bases[m->n_bases++] = b;
}

/* A chunk of changes and, before it, what they are changes of. */
static uint32_t keep_changes(struct renumber *r, uint32_t chunk)
{
    const struct page_place *bases = r->w->bases[chunk];
    unsigned n = r->w->chunks[chunk].pages;
    for (unsigned i = 0; i < n; i++)
        (void)keep_chunk(r, bases[i].chunk);
    uint32_t own = keep_chunk(r, chunk);
    for (unsigned i = 0; i < n; i++)
        add_base(r, (struct memory_base){.chunk = own,
                                         .of = r->chunk[bases[i].chunk],
                                         .at = (uint16_t)i,
                                         .pages = 1,
                                         .of_at = (uint16_t)bases[i].page});
    return own;
}

/* Number chunks and packs anew, in the order in which they are first needed. */
static void keep_what_is_used(const struct page_writer *w, struct memory *m)
{
    CLEANUP(mem_freep) uint32_t *chunk_of = mem_alloc((w->n_chunks + 1) * sizeof(uint32_t));
    CLEANUP(mem_freep) uint32_t *pack_of = mem_alloc((w->n_packs + 1) * sizeof(uint32_t));
    struct renumber r = {.w = w, .m = m, .chunk = chunk_of, .pack = pack_of};
    memset(chunk_of, 0xff, (w->n_chunks + 1) * sizeof(uint32_t));
    memset(pack_of, 0xff, (w->n_packs + 1) * sizeof(uint32_t));
    m->chunks = mem_alloc((w->n_chunks + 1) * sizeof(*m->chunks));
    m->packs = mem_alloc((w->n_packs + 1) * sizeof(*m->packs));
    for (size_t i = 0; i < m->n_extents; i++) {
        struct memory_extent *e = &m->extents[i];
        if (e->chunk == MEMORY_ZERO)
            continue;
        bool first = chunk_of[e->chunk] == UINT32_MAX;
        e->chunk =
            first && w->bases[e->chunk] ? keep_changes(&r, e->chunk) : keep_chunk(&r, e->chunk);
    }
}

static int by_id(const void *a, const void *b)
{
    const struct page_input *const *x = a, *const *y = b;
    return ((*x)->id > (*y)->id) - ((*x)->id < (*y)->id);
}

enum rc page_writer_finish(struct page_writer *w, struct memory *out,
                           struct page_writer_totals *totals, struct err *err)
{
    page_writer_hold(w, false);
    stop_workers(w);
    if (w->rc) {
        if (err)
            *err = w->err;
        return w->rc;
    }
    take_loans(w);
    CLEANUP(memory_done)
    struct memory m = {.sealed = w->options.domain != NULL,
                       .streams = mem_zalloc((w->n_inputs + 1) * sizeof(*m.streams))};
    size_t room = 0;
    enum rc rc = RC_OK;
    if (w->n_inputs)
        qsort(w->inputs, w->n_inputs, sizeof(void *), by_id);
    for (size_t i = 0; !rc && i < w->n_inputs; i++)
        rc = add_stream(w->inputs[i], &m, &room, err);
    if (rc)
        return rc;
    keep_what_is_used(w, &m);
    *out = m;
    m = (struct memory){0};
    *totals = w->totals;
    return RC_OK;
}

static void free_inputs(struct page_input **list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(list[i]->refs);
        page_likes_done(&list[i]->likes);
        free(list[i]);
    }
    free(list);
}

void page_writer_freep(struct page_writer **p)
{
    struct page_writer *w = STEAL(*p);
    if (!w)
        return;
    struct err err = ERR_INIT;
    if (!w->ending) /* given up: what waits is not stored */
        fail_with(w, err_set(&err, RC_CANCELLED, "given up"), &err);
    stop_workers(w);
    for (unsigned i = 0; w->workers && i < w->options.threads; i++) {
        pack_abortp(&w->workers[i].pack);
        free(w->workers[i].open.pages);
        free(w->workers[i].changes.pages);
        page_look_done(&w->workers[i].look);
    }
    for (size_t i = 0; i < w->n_chunks; i++)
        free(w->bases[i]);
    free_inputs(w->inputs, w->n_inputs);
    free_inputs(w->drafts, w->n_drafts);
    if (w->arena)
        (void)munmap(w->arena, w->arena_len);
    page_table_done(&w->table);
    free(w->loans);
    free(w->workers);
    free(w->blocks);
    free(w->learn);
    free(w->packs);
    free(w->chunks);
    free(w->bases);
    (void)pthread_cond_destroy(&w->work);
    (void)pthread_cond_destroy(&w->room);
    (void)pthread_mutex_destroy(&w->lock);
    free(w);
}

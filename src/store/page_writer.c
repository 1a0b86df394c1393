#include "store/page_writer.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "store/chunk_list.h"
#include "store/pack.h"
#include "store/pack_choice.h"
#include "store/page_refs.h"
#include "store/page_table.h"

#include <blake3.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#define BUFFERS_MIN 32U
#define THREADS_MAX 64U
#define REMEMBER_MIN ((uint64_t)512 << 10) /* pages; a million of them take a table of 64 MiB */
#define LEARN_PACKS_MIN 96U
#define LEARN_PACK_PAGES 8192U /* one more pack for each of these that are expected */
#define HEED_NS 100000000L
#define HUGE_PAGE ((size_t)2 << 20)

struct page_input {
    uint32_t id;
    bool draft;
    struct page_likes likes; /* constant when pages are given */
    page_ref *refs;          /* one for each page; a block's are its worker's until it is stored */
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
    const struct cancel *cancel; /* ends waiting for room; or NULL */
    enum rc rc;                  /* the first failure */
    struct err err;
    struct page_table table;
    struct pack_choice choice; /* packs to look into */
    size_t next_choice, known; /* known: pages of the store that were learned */
    unsigned learning;         /* threads that have not finished with it */
    struct chunk_list list;
    size_t learned_packs; /* the first so many of the list were there before */
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

/* ---- what the store has ---- */

static enum rc choose_packs(struct page_writer *w, struct err *err)
{
    const struct page_writer_options *o = &w->options;
    size_t max = o->packs_max ? o->packs_max
                              : LEARN_PACKS_MIN + (size_t)(o->expect_pages / LEARN_PACK_PAGES);
    return pack_choice_make(o->backend, o->prefer, o->n_prefer, max, &w->choice, err);
}

/* The number of a chunk that an index has, UINT32_MAX: it is of no use.  Of changes an index does
 * not say what they are changes of, so only those of the past are. */
static uint32_t learn_chunk(struct page_writer *w, const struct memory_chunk *c)
{
    uint32_t chunk = w->options.past ? page_past_chunk(w->options.past, c) : UINT32_MAX;
    if (chunk == UINT32_MAX && !memory_has_changes(c)) {
        chunk = chunk_list_chunk(&w->list);
        w->list.chunks[chunk] = *c;
    }
    return chunk;
}

/* The lock is held. */
static void learn_index(struct page_writer *w, const char *name, uint64_t size,
                        const struct pack_index *x)
{
    uint32_t pack = w->options.past ? page_past_pack(w->options.past, name) : UINT32_MAX;
    if (pack == UINT32_MAX)
        pack = chunk_list_pack(&w->list, name, size);
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
    while (!w->rc && w->next_choice < w->choice.n && w->known < w->options.known_max) {
        CLEANUP(pack_index_done) struct pack_index x = {0};
        const char *name = w->choice.names[w->next_choice++];
        uint64_t size = 0;
        (void)pthread_mutex_unlock(&w->lock);
        bool good =
            pack_read_index(w->options.backend, w->options.domain, name, &x, &size, NULL) == RC_OK;
        (void)pthread_mutex_lock(&w->lock);
        if (good)
            learn_index(w, name, size, &x);
    }
    if (--w->learning == 0)
        w->learned_packs = w->list.n_packs;
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
    k->pack_number = chunk_list_pack(&w->list, pack_name(k->pack), 0);
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
    w->list.packs[k->pack_number].size = pack_size(k->pack);
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
    w->list.chunks[o->number] = c;
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
static page_ref take_place(struct page_writer *w, struct open_chunk *o,
                           const struct page_name *name)
{
    if (o->filled == 0)
        o->number = chunk_list_chunk(&w->list);
    o->names[o->filled] = *name;
    page_table_add(&w->table, name, (struct page_place){o->number, o->filled});
    return page_ref_of(o->number, o->filled++);
}

static page_ref take_change(struct worker *k, const struct page_block *b,
                            const struct page_name *name)
{
    struct open_chunk *o = &k->changes;
    page_ref r = take_place(k->writer, o, name);
    if (o->filled == 1) {
        blake3_hasher_init(&o->whole);
        o->bases = chunk_list_bases(&k->writer->list, o->number, MEMORY_CHUNK_PAGES);
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
            b->input->refs[b->first + i] != PAGE_REF_ZERO && !page_table_find(&w->table, &names[i]);
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
    page_ref *refs = b->input->refs + b->first;
    for (; *at < b->n && k->open.filled < MEMORY_CHUNK_PAGES &&
           k->changes.filled < MEMORY_CHUNK_PAGES;
         ++*at) {
        if (refs[*at] == PAGE_REF_ZERO)
            continue;
        const struct page_name *name = &names[*at];
        const struct page_place *known = page_table_find(&w->table, name);
        w->totals.known += known != NULL && !b->input->draft;
        if (known) {
            refs[*at] = page_ref_of(known->chunk, known->page);
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

/* Names of the pages that are not zero; these have PAGE_REF_ZERO afterwards. */
static unsigned name_pages(const struct worker *k, const struct page_block *b,
                           struct page_name *names)
{
    const void *pages[MEMORY_CHUNK_PAGES];
    struct page_name list[MEMORY_CHUNK_PAGES];
    page_ref *refs = b->input->refs + b->first;
    unsigned n = 0;
    for (unsigned i = 0; i < b->n; i++) {
        const uint8_t *page = b->pages + i * MEMORY_PAGE;
        refs[i] = is_zero(page) ? PAGE_REF_ZERO : PAGE_REF_NONE;
        if (refs[i] != PAGE_REF_ZERO)
            pages[n++] = page;
    }
    page_name_all(k->writer->options.domain, pages, n, list);
    for (unsigned i = 0, at = 0; i < b->n; i++)
        if (refs[i] != PAGE_REF_ZERO)
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
    in->refs = page_refs_new(pages);
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

void page_writer_heed(struct page_writer *w, const struct cancel *cancel)
{
    (void)pthread_mutex_lock(&w->lock);
    w->cancel = cancel;
    (void)pthread_mutex_unlock(&w->lock);
}

/* A store that hangs makes no room, and the word that it is given up does not come by this way. */
static void await_room(struct page_writer *w)
{
    struct timespec until;
    if (!w->cancel) {
        (void)pthread_cond_wait(&w->room, &w->lock);
        return;
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += HEED_NS;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    (void)pthread_cond_clockwait(&w->room, &w->lock, CLOCK_MONOTONIC, &until);
}

struct page_block *page_writer_take(struct page_writer *w, struct err *err)
{
    (void)pthread_mutex_lock(&w->lock);
    bool given_up = false;
    while (!w->free && !w->rc && !(given_up = cancel_asked(w->cancel))) {
        (void)pthread_cond_broadcast(&w->work); /* held or not: there is no room left */
        await_room(w);
    }
    struct page_block *b = w->rc || given_up ? NULL : w->free;
    if (b) {
        w->free = b->next;
        w->n_used++;
    } else if (given_up) {
        (void)!cancel_error(w->cancel, err);
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
    if (w->options.past) /* vouched for by its manifest: the first packs and chunks */
        chunk_list_take(&w->list, page_past_memory(w->options.past));
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

/* ---- the end ---- */

/* The workers have ended: what drafts hold is known. */
static void take_loans(struct page_writer *w)
{
    for (size_t i = 0; i < w->n_loans; i++) {
        const struct loan *l = &w->loans[i];
        for (uint64_t k = 0; k < l->n; k++) {
            page_ref r = l->from->refs[l->at + k];
            l->to->refs[l->first + k] = r;
            w->totals.zero += r == PAGE_REF_ZERO;
            uint32_t chunk = page_ref_place(r).chunk;
            if (r < PAGE_REF_NONE && w->list.chunks[chunk].pack < w->learned_packs)
                w->totals.known++;
            else if (r < PAGE_REF_NONE && w->list.bases[chunk])
                w->totals.changed++;
        }
        w->totals.pages += l->n;
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
        rc = page_refs_add_stream(w->inputs[i]->refs, w->inputs[i]->id, w->inputs[i]->pages, &m,
                                  &room, err);
    if (rc)
        return rc;
    chunk_list_number(&w->list, &m);
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
    free_inputs(w->inputs, w->n_inputs);
    free_inputs(w->drafts, w->n_drafts);
    if (w->arena)
        (void)munmap(w->arena, w->arena_len);
    page_table_done(&w->table);
    pack_choice_done(&w->choice);
    chunk_list_done(&w->list);
    free(w->loans);
    free(w->workers);
    free(w->blocks);
    (void)pthread_cond_destroy(&w->work);
    (void)pthread_cond_destroy(&w->room);
    (void)pthread_mutex_destroy(&w->lock);
    free(w);
}

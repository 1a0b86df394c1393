#include "store/page_scan.h"

#include "base/compiler.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MAX 64U

/* Pieces of one chunk. */
struct group {
    uint32_t chunk;
    size_t first, n;
};

/* Groups whose chunks are read together. */
struct run {
    size_t first, n;
    uint32_t order; /* the lowest number of its chunks: these are numbered as they are needed */
};

struct page_scan {
    const struct page_reader *reader;
    struct page_piece *pieces;
    size_t n_pieces;
    uint64_t n_pages;
    struct group *groups; /* by pack, then by offset */
    size_t n_groups;
    struct run *runs;
    size_t n_runs, run_max; /* run_max: bytes */
    page_visit *visit;
    void *arg;

    pthread_t threads[THREADS_MAX];
    unsigned n_threads;
    pthread_mutex_t lock; /* of everything below */
    pthread_cond_t opened;
    bool open, stop;
    size_t next_run;
    enum rc rc; /* the first failure */
    struct err err;
};

/* ---- what is wanted ---- */

struct page_scan *page_scan_new(const struct page_reader *r)
{
    struct page_scan *s = mem_zalloc(sizeof(*s));
    s->reader = r;
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->opened, NULL);
    return s;
}

static void add_piece(struct page_scan *s, const struct page_piece *p)
{
    if ((s->n_pieces & (s->n_pieces - 1)) == 0)
        s->pieces =
            mem_realloc(s->pieces, (s->n_pieces ? s->n_pieces * 2 : 1) * sizeof(*s->pieces));
    s->pieces[s->n_pieces++] = *p;
    s->n_pages += p->pages;
}

enum rc page_scan_want(struct page_scan *s, uint32_t stream, uint64_t first, uint64_t n,
                       uint32_t place, uint64_t to, struct err *err)
{
    const struct memory *m = page_reader_memory(s->reader);
    const struct memory_stream *st = memory_stream(m, stream);
    if (!st || first > st->pages || n > st->pages - first)
        return err_set(err, RC_CORRUPT, "page image %u has no such pages", stream);
    for (size_t i = n ? memory_find(m, st, first) : 0; n > 0; i++) {
        const struct memory_extent *e = &m->extents[i];
        uint64_t skip = first - e->page, part = e->pages - skip < n ? e->pages - skip : n;
        if (e->chunk != MEMORY_ZERO)
            add_piece(s, &(struct page_piece){.to = to,
                                              .place = place,
                                              .chunk = e->chunk,
                                              .at = (uint16_t)(e->at + skip),
                                              .pages = (uint16_t)part});
        to += part * MEMORY_PAGE;
        first += part;
        n -= part;
    }
    return RC_OK;
}

uint64_t page_scan_pages(const struct page_scan *s)
{
    return s->n_pages;
}

/* ---- in which order ---- */

static int compare(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int by_chunk(const void *a, const void *b)
{
    const struct page_piece *x = a, *y = b;
    int order = compare(x->chunk, y->chunk);
    if (!order)
        order = compare(x->place, y->place);
    return order ? order : compare(x->to, y->to);
}

static int by_place_in_packs(const void *a, const void *b, void *memory)
{
    const struct memory *m = memory;
    const struct memory_chunk *x = &m->chunks[((const struct group *)a)->chunk];
    const struct memory_chunk *y = &m->chunks[((const struct group *)b)->chunk];
    int order = compare(x->pack, y->pack);
    return order ? order : compare(x->offset, y->offset);
}

static int by_need(const void *a, const void *b)
{
    return compare(((const struct run *)a)->order, ((const struct run *)b)->order);
}

static void make_groups(struct page_scan *s)
{
    if (s->n_pieces)
        qsort(s->pieces, s->n_pieces, sizeof(*s->pieces), by_chunk);
    for (size_t i = 0; i < s->n_pieces; i++) {
        struct group *last = s->n_groups ? &s->groups[s->n_groups - 1] : NULL;
        if (last && last->chunk == s->pieces[i].chunk) {
            last->n++;
            continue;
        }
        if (!s->groups || (s->n_groups & (s->n_groups - 1)) == 0)
            s->groups =
                mem_realloc(s->groups, (s->n_groups ? s->n_groups * 2 : 1) * sizeof(*s->groups));
        s->groups[s->n_groups++] = (struct group){s->pieces[i].chunk, i, 1};
    }
    if (s->n_groups)
        qsort_r(s->groups, s->n_groups, sizeof(*s->groups), by_place_in_packs,
                (void *)(uintptr_t)page_reader_memory(s->reader));
}

static void make_runs(struct page_scan *s)
{
    const struct memory *m = page_reader_memory(s->reader);
    const struct memory_chunk *begin = NULL;
    uint64_t end = 0;
    struct run *runs = mem_alloc((s->n_groups + 1) * sizeof(*runs));
    s->runs = runs;
    for (size_t i = 0; i < s->n_groups; i++) {
        uint32_t number = s->groups[i].chunk;
        const struct memory_chunk *c = &m->chunks[number];
        if (begin && begin->pack == c->pack && c->offset >= end && c->offset - end <= MEMORY_HOLE &&
            c->offset + c->stored - begin->offset <= s->run_max) {
            struct run *r = &runs[s->n_runs - 1]; /* that began there */
            r->n++;
            r->order = number < r->order ? number : r->order;
        } else {
            runs[s->n_runs++] = (struct run){i, 1, number};
            begin = c;
        }
        end = c->offset + c->stored;
    }
    if (s->n_runs)
        qsort(s->runs, s->n_runs, sizeof(*s->runs), by_need);
}

/* ---- the work ---- */

static const struct run *next_run(struct page_scan *s)
{
    (void)pthread_mutex_lock(&s->lock);
    const struct run *r =
        !s->rc && !s->stop && s->next_run < s->n_runs ? &s->runs[s->next_run++] : NULL;
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

/* Whether what was read is to be handed on. */
static bool await_opening(struct page_scan *s)
{
    (void)pthread_mutex_lock(&s->lock);
    while (!s->open && !s->stop && !s->rc)
        (void)pthread_cond_wait(&s->opened, &s->lock);
    bool on = !s->stop && !s->rc;
    (void)pthread_mutex_unlock(&s->lock);
    return on;
}

static void fail(struct page_scan *s, enum rc rc, const struct err *err)
{
    (void)pthread_mutex_lock(&s->lock);
    if (!s->rc) {
        s->rc = rc;
        s->err = *err;
    }
    (void)pthread_cond_broadcast(&s->opened);
    (void)pthread_mutex_unlock(&s->lock);
}

static enum rc do_run(struct page_scan *s, const struct run *r, uint8_t *data, uint8_t *pages,
                      struct err *err)
{
    const struct memory *m = page_reader_memory(s->reader);
    const struct memory_chunk *first = &m->chunks[s->groups[r->first].chunk];
    const struct memory_chunk *last = &m->chunks[s->groups[r->first + r->n - 1].chunk];
    size_t len = (size_t)(last->offset + last->stored - first->offset);
    enum rc rc = page_reader_stored(s->reader, first->pack, first->offset, data, len, err);
    if (rc || !await_opening(s))
        return rc;
    for (size_t i = r->first; !rc && i < r->first + r->n; i++) {
        const struct group *g = &s->groups[i];
        uint8_t *stored = data + (m->chunks[g->chunk].offset - first->offset);
        rc = page_reader_expand(s->reader, g->chunk, stored, pages, err);
        if (!rc)
            rc = s->visit(s->arg, &s->pieces[g->first], g->n, pages, err);
    }
    return rc;
}

static void *work(void *arg)
{
    struct page_scan *s = arg;
    CLEANUP(mem_freep) uint8_t *buffers = mem_alloc(s->run_max + MEMORY_CHUNK);
    for (const struct run *r; (r = next_run(s));) {
        struct err err = ERR_INIT;
        enum rc rc = do_run(s, r, buffers + MEMORY_CHUNK, buffers, &err);
        if (rc)
            fail(s, rc, &err);
    }
    return NULL;
}

void page_scan_begin(struct page_scan *s, page_visit *visit, void *arg)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct backend_pace pace = page_reader_pace(s->reader);
    unsigned n = cpus > (long)pace.reads ? (unsigned)cpus : pace.reads;
    n = n < THREADS_MAX ? n : THREADS_MAX;
    s->visit = visit;
    s->arg = arg;
    s->run_max = PAGE_SCAN_MEMORY / n - MEMORY_CHUNK;
    s->run_max = pace.bytes < s->run_max ? pace.bytes : s->run_max;
    make_groups(s);
    make_runs(s);
    while (s->n_threads < n && s->n_threads < s->n_runs &&
           pthread_create(&s->threads[s->n_threads], NULL, work, s) == 0)
        s->n_threads++;
}

static void end_threads(struct page_scan *s, bool stop)
{
    (void)pthread_mutex_lock(&s->lock);
    s->open = true;
    s->stop = s->stop || stop;
    (void)pthread_cond_broadcast(&s->opened);
    (void)pthread_mutex_unlock(&s->lock);
    while (s->n_threads > 0)
        (void)pthread_join(s->threads[--s->n_threads], NULL);
}

enum rc page_scan_finish(struct page_scan *s, struct err *err)
{
    bool alone = s->n_threads == 0;
    end_threads(s, false);
    if (alone) /* no thread was to be had */
        (void)work(s);
    if (s->rc && err)
        *err = s->err;
    return s->rc;
}

void page_scan_freep(struct page_scan **p)
{
    struct page_scan *s = STEAL(*p);
    if (!s)
        return;
    end_threads(s, true);
    (void)pthread_mutex_destroy(&s->lock);
    (void)pthread_cond_destroy(&s->opened);
    free(s->pieces);
    free(s->groups);
    free(s->runs);
    free(s);
}

/* ---- verifying all ---- */

struct count {
    const struct memory *memory;
    uint64_t *done;
};

static enum rc count_chunk(void *arg, const struct page_piece *pieces, size_t n,
                           const uint8_t *pages, struct err *err)
{
    const struct count *c = arg;
    (void)n, (void)pages, (void)err;
    if (c->done)
        (void)__atomic_fetch_add(c->done, c->memory->chunks[pieces->chunk].stored,
                                 __ATOMIC_RELAXED);
    return RC_OK;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): `done` is counted up by the threads */
enum rc page_scan_verify(const struct page_reader *r, uint64_t *done, struct err *err)
{
    struct count c = {page_reader_memory(r), done};
    CLEANUP(page_scan_freep) struct page_scan *s = page_scan_new(r);
    for (uint32_t i = 0; i < c.memory->n_chunks; i++)
        add_piece(s, &(struct page_piece){.chunk = i, .pages = c.memory->chunks[i].pages});
    page_scan_begin(s, count_chunk, &c);
    return page_scan_finish(s, err);
}

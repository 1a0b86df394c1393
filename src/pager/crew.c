#include "pager/crew.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "pager/early.h"
#include "pager/pace.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CREW_MAX 32U
#define PAUSE_NS 200000
#define PATIENCE_NS (10 * CLOCK_S) /* with a mapping that the table has and the kernel does not */
/* How long those stay away at most who fill while others want the processors: one comes back sooner
 * than all the others. */
#define AWAY_NS (16 * CLOCK_MS)
#define FAR_AWAY_NS (64 * CLOCK_MS)

#define EARLY_BYTES ((size_t)128 << 20) /* of the working set, before there is a process */

struct fault {
    struct space *space;
    uint64_t address;
};

/* A gap, found by its pages. */
struct home {
    uint32_t stream, pid;
    uint64_t first, pages, address;
};

/* Where a chunk of the working set begins: in which extent, and at which page of all. */
struct begin {
    size_t extent;
    uint64_t page;
};

struct crew {
    struct crew_options o;
    struct home *homes;   /* by stream, then by first page */
    struct begin *begins; /* of the working set's chunks */
    pthread_t threads[CREW_MAX + 1];
    unsigned n_threads;
    unsigned n_working; /* atomic: threads that have begun */
    bool stop;          /* atomic */

    pthread_mutex_t lock; /* everything below */
    pthread_cond_t wake;
    pthread_cond_t relief; /* of who stays away: there are faults, or it is over */
    bool registered, fill; /* registered: atomic for reading */
    struct space **spaces;
    size_t n_spaces;
    struct fault *faults; /* a ring */
    size_t first_fault, n_faults, max_faults;
    struct early *early;  /* of the working set */
    struct fault *parked; /* whose pages others have in hand */
    size_t n_parked;
    size_t at_space; /* where filling is */
    uint64_t at_address;
    unsigned filling, expanding; /* threads that have a part in hand */
    enum rc rc;
    struct err err;
};

enum job_kind { JOB_FAULT, JOB_EXPAND, JOB_WORKINGSET, JOB_FILL };

struct job {
    enum job_kind kind;
    struct space *space;
    struct regions_run run; /* fault: only its address */
    size_t chunk;
};

/* What one thread needs. */
struct hand {
    struct crew *crew;
    struct pace pace;
    uint32_t chunk;           /* that is in `pages`, MEMORY_ZERO = none */
    uint8_t *scratch, *pages; /* MEMORY_CHUNK each */
};

static void tell(const struct crew *c)
{
    uint64_t one = 1;
    (void)!write(c->o.news, &one, sizeof(one));
}

static void fail(struct crew *c, enum rc rc, const struct err *err)
{
    (void)pthread_mutex_lock(&c->lock);
    if (!c->rc) {
        c->rc = rc;
        c->err = *err;
    }
    (void)pthread_mutex_unlock(&c->lock);
    __atomic_store_n(&c->stop, true, __ATOMIC_RELAXED);
    tell(c);
}

static void pause_briefly(void)
{
    struct timespec t = {0, PAUSE_NS};
    (void)nanosleep(&t, NULL);
}

static bool stopped(const struct crew *c)
{
    return __atomic_load_n(&c->stop, __ATOMIC_RELAXED);
}

static bool is_registered(const struct crew *c)
{
    return __atomic_load_n(&c->registered, __ATOMIC_ACQUIRE);
}

/* ---- what is to be done ---- */

/* The lock is held. */
static void push_fault(struct crew *c, struct space *s, uint64_t address)
{
    if (c->n_faults == c->max_faults || c->max_faults == 0) {
        struct fault *ring = mem_alloc((2 * c->max_faults + 1) * sizeof(*ring));
        for (size_t i = 0; c->max_faults && i < c->n_faults; i++)
            ring[i] = c->faults[(c->first_fault + i) % c->max_faults];
        free(c->faults);
        c->faults = ring;
        c->first_fault = 0;
        c->max_faults = 2 * c->max_faults + 1;
    }
    c->faults[(c->first_fault + c->n_faults++) % c->max_faults] = (struct fault){s, address};
    (void)pthread_cond_signal(&c->wake); /* whoever waits may take it */
    (void)pthread_cond_broadcast(&c->relief);
}

static void park(struct crew *c, struct space *s, uint64_t address)
{
    if ((c->n_parked & (c->n_parked - 1)) == 0)
        c->parked =
            mem_realloc(c->parked, (c->n_parked ? c->n_parked * 2 : 1) * sizeof(*c->parked));
    c->parked[c->n_parked++] = (struct fault){s, address};
}

/* A chunk is no longer in anybody's hand: those who wait for it are looked at again. */
static void recall_parked(struct crew *c)
{
    for (size_t i = 0; i < c->n_parked; i++)
        push_fault(c, c->parked[i].space, c->parked[i].address);
    c->n_parked = 0;
}

/* The part of a run that lies in one extent, so that a chunk is expanded for one thread only. */
static void cut_to_extent(const struct crew *c, struct regions_run *run)
{
    const struct memory *m = page_reader_memory(c->o.pages);
    const struct memory_stream *s = memory_stream(m, run->stream);
    const struct memory_extent *e = &m->extents[memory_find(m, s, run->first)];
    uint64_t rest = e->page + e->pages - run->first;
    run->pages = run->pages < rest ? run->pages : rest;
}

/* Something that nobody has asked for.  False: nothing now. */
static bool take_fill(struct crew *c, struct job *out)
{
    if (!c->registered || !c->fill)
        return false;
    for (; c->at_space < c->n_spaces; c->at_space++, c->at_address = 0) {
        struct space *s = c->spaces[c->at_space];
        if (!space_next(s, c->at_address, MEMORY_CHUNK_PAGES, &out->run))
            continue;
        cut_to_extent(c, &out->run);
        out->kind = JOB_FILL;
        out->space = s;
        c->at_address = out->run.address + out->run.pages * REGIONS_PAGE;
        c->filling++;
        return true;
    }
    return false;
}

/* At the end of a round: another one for what is still missing, or there is news. */
static bool next_round(struct crew *c)
{
    uint64_t missing = 0;
    if (!c->registered || !c->fill || c->filling > 0)
        return false;
    for (size_t i = 0; i < c->n_spaces; i++)
        missing += space_missing(c->spaces[i]);
    c->at_space = 0;
    c->at_address = 0;
    if (missing == 0)
        tell(c);
    return missing > 0;
}

/* Until there is a process, half of us leave the processors to CRIU. */
static bool take_chunk(struct crew *c, struct job *out)
{
    if (c->n_spaces > 0) {
        out->kind = JOB_WORKINGSET;
        out->chunk = early_give(c->early);
        return out->chunk != EARLY_NONE;
    }
    out->kind = JOB_EXPAND;
    out->chunk = c->expanding < (c->o.threads + 1) / 2 ? early_expand(c->early) : EARLY_NONE;
    c->expanding += out->chunk != EARLY_NONE;
    return out->chunk != EARLY_NONE;
}

static bool take(struct crew *c, bool only_faults, struct job *out)
{
    *out = (struct job){.kind = JOB_FAULT};
    if (c->n_faults > 0) {
        out->space = c->faults[c->first_fault].space;
        out->run.address = c->faults[c->first_fault].address;
        c->first_fault = (c->first_fault + 1) % c->max_faults;
        c->n_faults--;
        return true;
    }
    if (only_faults)
        return false;
    if (take_chunk(c, out))
        return true;
    return take_fill(c, out) || (next_round(c) && take_fill(c, out));
}

/* ---- pages ---- */

/* The page of a stream, from its chunk, and how many that follow lie behind it in the chunk. */
static enum rc fetch(struct hand *h, uint32_t stream, uint64_t first, const uint8_t **out_data,
                     uint64_t *out_n, struct err *err)
{
    const struct memory *m = page_reader_memory(h->crew->o.pages);
    const struct memory_stream *s = memory_stream(m, stream);
    if (!s || first >= s->pages)
        return err_set(err, RC_CORRUPT, "page image %u has no page %ju", stream, (uintmax_t)first);
    const struct memory_extent *e = &m->extents[memory_find(m, s, first)];
    uint64_t skip = first - e->page;
    *out_n = e->pages - skip;
    if (e->chunk == MEMORY_ZERO) {
        memset(h->pages, 0, MEMORY_CHUNK);
        h->chunk = MEMORY_ZERO;
        *out_data = h->pages;
        *out_n = *out_n < MEMORY_CHUNK_PAGES ? *out_n : MEMORY_CHUNK_PAGES;
        return RC_OK;
    }
    if (e->chunk != h->chunk) {
        h->chunk = MEMORY_ZERO;
        enum rc rc = page_reader_chunk(h->crew->o.pages, e->chunk, h->scratch, h->pages, err);
        if (rc)
            return rc;
        h->chunk = e->chunk;
    }
    *out_data = h->pages + (e->at + skip) * MEMORY_PAGE;
    return RC_OK;
}

/* Give pages that lie in one chunk; before everything is registered their mapping may not be there
 * yet. */
static enum rc give(struct hand *h, struct space *s, const struct regions_run *run,
                    const uint8_t *data, struct err *err)
{
    struct crew *c = h->crew;
    uint64_t patience = clock_now() + PATIENCE_NS;
    while (s && !stopped(c)) {
        enum space_result result = space_give(s, run, data, err);
        if (result == SPACE_OK)
            break;
        if (result == SPACE_FAILED)
            return RC_IO;
        if (!is_registered(c))
            patience = clock_now() + PATIENCE_NS;
        if (clock_now() > patience)
            return err_set(err, RC_IO, "process %u has no mapping at %#jx for its memory", s->pid,
                           (uintmax_t)run->address);
        pause_briefly();
    }
    (void)__atomic_fetch_add(&c->o.figures->given_pages, run->pages, __ATOMIC_RELAXED);
    return RC_OK;
}

static enum rc give_run(struct hand *h, struct space *s, struct regions_run run, struct err *err)
{
    while (run.pages > 0 && !stopped(h->crew)) {
        const uint8_t *data = NULL;
        uint64_t n = 0;
        enum rc rc = fetch(h, run.stream, run.first, &data, &n, err);
        if (rc)
            return rc;
        struct regions_run part = run;
        part.pages = n < run.pages ? n : run.pages;
        rc = give(h, s, &part, data, err);
        if (rc)
            return rc;
        run.address += part.pages * REGIONS_PAGE;
        run.first += part.pages;
        run.pages -= part.pages;
    }
    return RC_OK;
}

/* ---- jobs ---- */

/* What lies in the same chunk as the page that was asked for is at hand, and likely wanted next. */
static enum rc give_neighbours(struct hand *h, struct space *s, const struct regions_run *page,
                               struct err *err)
{
    struct regions_run run = *page, more;
    run.pages = MEMORY_CHUNK_PAGES;
    cut_to_extent(h->crew, &run);
    uint64_t end = run.address + run.pages * REGIONS_PAGE;
    enum rc rc = RC_OK;
    for (uint64_t at = run.address; !rc && space_next(s, at, MEMORY_CHUNK_PAGES, &more);
         at = more.address + more.pages * REGIONS_PAGE) {
        if (more.address >= end || more.stream != run.stream ||
            more.first - run.first != (more.address - run.address) / REGIONS_PAGE)
            break;
        uint64_t room = (end - more.address) / REGIONS_PAGE;
        more.pages = more.pages < room ? more.pages : room;
        rc = give_run(h, s, more, err);
    }
    return rc;
}

/* Where a page of a stream belonged when the checkpoint was made. */
static const struct home *home_of(const struct crew *c, uint32_t stream, uint64_t first)
{
    size_t low = 0, high = c->o.n_gaps;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct home *x = &c->homes[middle];
        if (x->stream < stream || (x->stream == stream && x->first + x->pages <= first))
            low = middle + 1;
        else
            high = middle;
    }
    const struct home *x = low < c->o.n_gaps ? &c->homes[low] : NULL;
    return x && x->stream == stream && x->first <= first ? x : NULL;
}

/* The space of a process, which CRIU may not have made yet. */
static struct space *await_space(struct crew *c, uint32_t pid)
{
    for (bool last = false;; last = is_registered(c), pause_briefly()) {
        struct space *found = NULL;
        (void)pthread_mutex_lock(&c->lock);
        for (size_t i = 0; i < c->n_spaces && !found; i++)
            found = c->spaces[i]->pid == pid ? c->spaces[i] : NULL;
        (void)pthread_mutex_unlock(&c->lock);
        if (found || last || stopped(c))
            return found;
    }
}

/* A part of the working set that is one gap's.  It only comes early: what has no place any more is
 * left out. */
static enum rc give_early(struct hand *h, const struct home *x, const struct regions_run *run,
                          const uint8_t *data, struct err *err)
{
    struct space *s = await_space(h->crew, x->pid);
    enum space_result result = SPACE_EARLY;
    for (bool last = false; s && result == SPACE_EARLY && !last && !stopped(h->crew);) {
        last = is_registered(h->crew);
        result = space_give(s, run, data, err);
        if (result == SPACE_EARLY && !last)
            pause_briefly();
    }
    if (s && result == SPACE_OK)
        (void)__atomic_fetch_add(&h->crew->o.figures->given_pages, run->pages, __ATOMIC_RELAXED);
    return result == SPACE_FAILED ? RC_IO : RC_OK;
}

static enum rc give_extent(struct hand *h, struct workingset_extent e, const uint8_t *data,
                           struct err *err)
{
    while (e.pages > 0) {
        const struct home *x = home_of(h->crew, e.stream, e.first);
        uint64_t skip = x ? e.first - x->first : 0, room = x ? x->pages - skip : 1;
        uint64_t n = room < e.pages ? room : e.pages;
        struct regions_run run = {
            .pages = n, .first = e.first, .stream = e.stream, .address = skip * REGIONS_PAGE};
        run.address += x ? x->address : 0;
        enum rc rc = x ? give_early(h, x, &run, data, err) : RC_OK;
        if (rc)
            return rc;
        data += n * MEMORY_PAGE;
        e.first += n;
        e.pages -= (uint32_t)n;
    }
    return RC_OK;
}

/* Before there is a process to give it to. */
static void expand_early(struct hand *h, size_t chunk)
{
    struct crew *c = h->crew;
    struct err damage = ERR_INIT;
    uint8_t *room = early_data(c->early, chunk);
    enum rc rc = workingset_chunk(c->o.workingset, chunk, h->scratch, room, &damage);
    (void)pthread_mutex_lock(&c->lock);
    early_expanded(c->early, chunk, !rc);
    c->expanding--;
    recall_parked(c);
    (void)pthread_mutex_unlock(&c->lock);
}

/* A chunk that was taken to be given. */
static enum rc give_chunk(struct hand *h, size_t chunk, struct err *err)
{
    struct crew *c = h->crew;
    const struct workingset *w = c->o.workingset;
    struct err damage = ERR_INIT;
    const uint8_t *pages = early_data(c->early, chunk);
    enum rc rc = RC_OK;
    if (!pages) {
        h->chunk = MEMORY_ZERO;
        rc = workingset_chunk(w, chunk, h->scratch, h->pages, &damage);
        pages = h->pages;
    }
    uint64_t begin = chunk * MEMORY_CHUNK_PAGES, end = begin + w->chunks[chunk].pages;
    uint64_t at = c->begins[chunk].page;
    const size_t n = rc ? 0 : w->n_extents; /* damaged: its pages come from packs, as all others */
    rc = RC_OK;
    for (size_t i = c->begins[chunk].extent; !rc && i < n && at < end; i++) {
        struct workingset_extent e = w->extents[i];
        uint64_t skip = begin > at ? begin - at : 0, room = end - at - skip;
        e.first += skip;
        e.pages -= (uint32_t)skip;
        e.pages = e.pages < room ? e.pages : (uint32_t)room;
        rc = give_extent(h, e, pages + (at + skip - begin) * MEMORY_PAGE, err);
        at += w->extents[i].pages;
    }
    (void)pthread_mutex_lock(&c->lock);
    if (early_given(c->early, chunk))
        c->o.figures->workingset_ns = clock_now();
    recall_parked(c);
    (void)pthread_mutex_unlock(&c->lock);
    return rc;
}

/* The working set's chunk that a page is in which somebody waits for, if it is still to come: then
 * it is the caller's to give.  When another thread has it in hand, the fault is looked at again
 * afterwards.  A forked process is given nothing of the working set. */
static size_t take_chunk_of(struct crew *c, const struct job *j, const struct regions_run *page,
                            bool *out_parked)
{
    /* While CRIU works, a chunk may have to wait for a process that CRIU makes only later. */
    bool wanted = j->space && j->space->pid && is_registered(c);
    size_t chunk = wanted ? early_find(c->early, page->stream, page->first) : EARLY_NONE;
    if (chunk == EARLY_NONE)
        return EARLY_NONE;
    (void)pthread_mutex_lock(&c->lock);
    *out_parked = early_in_hand(c->early, chunk);
    if (*out_parked)
        park(c, j->space, j->run.address);
    bool ours = early_give_this(c->early, chunk);
    (void)pthread_mutex_unlock(&c->lock);
    return ours ? chunk : EARLY_NONE;
}

static enum rc serve_fault(struct hand *h, const struct job *j, struct err *err)
{
    struct crew *c = h->crew;
    struct regions_run run;
    bool parked = false;
    while (!stopped(c)) {
        if (space_find(j->space, j->run.address, 1, &run)) {
            size_t chunk = take_chunk_of(c, j, &run, &parked);
            enum rc given = chunk == EARLY_NONE ? RC_OK : give_chunk(h, chunk, err);
            if (given || parked)
                return given;
            if (chunk != EARLY_NONE)
                continue; /* it is there now, unless the program has moved it */
            record_add(c->o.record, run.stream, run.first);
            enum rc rc = give_run(h, j->space, run, err);
            /* While the rest waits for a record to be complete, nothing may come by the way. */
            bool more = __atomic_load_n(&c->fill, __ATOMIC_RELAXED);
            return rc || !more ? rc : give_neighbours(h, j->space, &run, err);
        }
        enum space_result result = space_give_zero(j->space, j->run.address, err);
        if (result == SPACE_OK)
            return RC_OK;
        if (result == SPACE_FAILED)
            return RC_IO;
    }
    return RC_OK;
}

/* Leave the processors to others for a while, but not while somebody waits for a page. */
static void stay_away(struct crew *c, uint64_t ns)
{
    uint64_t end = clock_now() + ns;
    struct timespec until = {(time_t)(end / CLOCK_S), (long)(end % CLOCK_S)};
    (void)pthread_mutex_lock(&c->lock);
    while (!stopped(c) && c->n_faults == 0 &&
           pthread_cond_timedwait(&c->relief, &c->lock, &until) == 0)
        continue;
    (void)pthread_mutex_unlock(&c->lock);
}

static enum rc serve(struct hand *h, const struct job *j, struct err *err)
{
    struct crew *c = h->crew;
    enum rc rc = RC_OK;
    (j->kind == JOB_FILL ? pace_behind : pace_before)(&h->pace);
    if (j->kind == JOB_FAULT)
        rc = serve_fault(h, j, err);
    else if (j->kind == JOB_EXPAND)
        expand_early(h, j->chunk);
    else if (j->kind == JOB_WORKINGSET)
        rc = give_chunk(h, j->chunk, err);
    else
        rc = give_run(h, j->space, j->run, err);
    (void)pthread_mutex_lock(&c->lock);
    c->filling -= j->kind == JOB_FILL;
    if (c->fill && c->filling == 0) /* it may have been the last: who waits must see */
        (void)pthread_cond_broadcast(&c->wake);
    (void)pthread_mutex_unlock(&c->lock);
    uint64_t pause = j->kind == JOB_FILL && !rc ? pace_pause(&h->pace) : 0;
    if (pause > 0)
        stay_away(c, pause);
    return rc;
}

/* The first thread serves faults only. */
static void work(struct crew *c, unsigned number)
{
    bool only_faults = number == 0;
    CLEANUP(mem_freep) uint8_t *buffers = mem_alloc(2 * MEMORY_CHUNK);
    struct hand h = {
        .crew = c, .chunk = MEMORY_ZERO, .scratch = buffers, .pages = buffers + MEMORY_CHUNK};
    memset(buffers, 0, 2 * MEMORY_CHUNK); /* touched before anybody waits */
    pace_init(&h.pace, number == 1 ? AWAY_NS : FAR_AWAY_NS);
    for (;;) {
        struct job j = {0};
        struct err err = ERR_INIT;
        (void)pthread_mutex_lock(&c->lock);
        while (!stopped(c) && !take(c, only_faults, &j))
            (void)pthread_cond_wait(&c->wake, &c->lock);
        (void)pthread_mutex_unlock(&c->lock);
        if (stopped(c))
            break;
        enum rc rc = serve(&h, &j, &err);
        if (rc)
            fail(c, rc, &err);
    }
    pace_done(&h.pace);
}

static void *work_thread(void *arg)
{
    struct crew *c = arg;
    work(c, __atomic_fetch_add(&c->n_working, 1, __ATOMIC_RELAXED));
    return NULL;
}

/* ---- the crew ---- */

static int by_page(const void *a, const void *b)
{
    const struct home *x = a, *y = b;
    if (x->stream != y->stream)
        return x->stream < y->stream ? -1 : 1;
    return (x->first > y->first) - (x->first < y->first);
}

static void find_homes(struct crew *c)
{
    size_t n = c->o.n_gaps;
    c->homes = mem_alloc((n + 1) * sizeof(*c->homes));
    for (size_t i = 0; i < n; i++) {
        const struct pager_gap *g = &c->o.gaps[i];
        c->homes[i] = (struct home){g->stream, g->pid, g->first, g->pages, g->address};
    }
    if (n > 1)
        qsort(c->homes, n, sizeof(*c->homes), by_page);
}

static void find_begins(struct crew *c)
{
    const struct workingset *w = c->o.workingset;
    struct begin at = {0, 0};
    c->begins = mem_alloc(((w ? w->n_chunks : 0) + 1) * sizeof(*c->begins));
    for (size_t i = 0; w && i < w->n_chunks; i++) {
        uint64_t begin = i * MEMORY_CHUNK_PAGES;
        while (at.page + w->extents[at.extent].pages <= begin)
            at.page += w->extents[at.extent++].pages;
        c->begins[i] = at;
    }
}

enum rc crew_new(const struct crew_options *o, struct crew **out, struct err *err)
{
    CLEANUP(crew_freep) struct crew *c = mem_zalloc(sizeof(*c));
    c->o = *o;
    c->max_faults = 1024;
    c->faults = mem_alloc(c->max_faults * sizeof(*c->faults));
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_cond_init(&c->wake, NULL);
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&c->relief, &attr);
    (void)pthread_condattr_destroy(&attr);
    find_homes(c);
    find_begins(c);
    c->early = early_new(o->workingset, EARLY_BYTES);
    unsigned wanted = o->threads < CREW_MAX ? o->threads : CREW_MAX;
    for (; c->n_threads < wanted + 1; c->n_threads++)
        if (pthread_create(&c->threads[c->n_threads], NULL, work_thread, c) != 0)
            break;
    if (c->n_threads < 2)
        return err_set(err, RC_IO, "no thread can be started");
    *out = STEAL(c);
    return RC_OK;
}

void crew_add(struct crew *c, struct space *s)
{
    (void)pthread_mutex_lock(&c->lock);
    if ((c->n_spaces & (c->n_spaces - 1)) == 0)
        c->spaces = mem_realloc(c->spaces, (c->n_spaces ? c->n_spaces * 2 : 1) * sizeof(void *));
    c->spaces[c->n_spaces++] = s;
    (void)pthread_cond_broadcast(&c->wake);
    (void)pthread_mutex_unlock(&c->lock);
}

void crew_fault(struct crew *c, struct space *s, uint64_t address)
{
    (void)__atomic_fetch_add(&c->o.figures->faults, 1, __ATOMIC_RELAXED);
    (void)pthread_mutex_lock(&c->lock);
    push_fault(c, s, address);
    (void)pthread_mutex_unlock(&c->lock);
}

void crew_registered(struct crew *c)
{
    (void)pthread_mutex_lock(&c->lock);
    __atomic_store_n(&c->registered, true, __ATOMIC_RELEASE);
    (void)pthread_cond_broadcast(&c->wake);
    (void)pthread_mutex_unlock(&c->lock);
}

void crew_fill(struct crew *c)
{
    (void)pthread_mutex_lock(&c->lock);
    __atomic_store_n(&c->fill, true, __ATOMIC_RELAXED);
    (void)pthread_cond_broadcast(&c->wake);
    (void)pthread_mutex_unlock(&c->lock);
}

enum rc crew_trouble(struct crew *c, struct err *err)
{
    (void)pthread_mutex_lock(&c->lock);
    enum rc rc = c->rc;
    if (rc && err)
        *err = c->err;
    (void)pthread_mutex_unlock(&c->lock);
    return rc;
}

void crew_freep(struct crew **p)
{
    struct crew *c = STEAL(*p);
    if (!c)
        return;
    (void)pthread_mutex_lock(&c->lock);
    __atomic_store_n(&c->stop, true, __ATOMIC_RELAXED);
    (void)pthread_cond_broadcast(&c->wake);
    (void)pthread_cond_broadcast(&c->relief);
    (void)pthread_mutex_unlock(&c->lock);
    for (unsigned i = 0; i < c->n_threads; i++)
        (void)pthread_join(c->threads[i], NULL);
    (void)pthread_mutex_destroy(&c->lock);
    (void)pthread_cond_destroy(&c->wake);
    (void)pthread_cond_destroy(&c->relief);
    free(c->homes);
    free(c->begins);
    free(c->spaces);
    free(c->faults);
    free(c->parked);
    early_freep(&c->early);
    free(c);
}

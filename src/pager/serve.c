#include "pager/serve.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/lazy.h"
#include "pager/crew.h"
#include "pager/pace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 20
#define RECORD_NS (5 * CLOCK_S)      /* at most this long is recorded with the rest waiting */
#define RECORD_FAR_NS (20 * CLOCK_S) /* over a network, where each page takes as long as 100 */
#define RECORD_QUIET_NS CLOCK_S      /* so long without a fault: the program has what it needs */
#define REFINE_MIN ((size_t)256)     /* pages that are worth a new record */
#define THREADS_MAX 16
#define TIDY_PAUSE_NS (64 * CLOCK_MS) /* at most, between pieces that nobody waits for */

struct server {
    const struct serve *s;
    int epoll, news, connection;
    struct crew *crew;
    struct record record;
    struct workingset set;
    bool has_set; /* one exists; it is used only if that was asked for */
    bool filling;
    struct space **spaces;
    size_t n_spaces;
};

/* ---- address spaces ---- */

static enum rc watch(struct server *v, int fd, void *what, struct err *err)
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = what};
    if (epoll_ctl(v->epoll, EPOLL_CTL_ADD, fd, &e) < 0)
        return err_sys(err, "watch a descriptor");
    return RC_OK;
}

static enum rc add_space(struct server *v, struct space *s, struct err *err)
{
    if ((v->n_spaces & (v->n_spaces - 1)) == 0)
        v->spaces = mem_realloc(v->spaces, (v->n_spaces ? v->n_spaces * 2 : 1) * sizeof(void *));
    v->spaces[v->n_spaces++] = s;
    crew_add(v->crew, s);
    return watch(v, s->uffd, s, err);
}

/* Fresh memory is zero. */
static void leave_out_zeros(const struct server *v, struct regions *r, const struct pager_gap *g)
{
    const struct memory *m = page_reader_memory(v->s->o->pages);
    const struct memory_stream *s = memory_stream(m, g->stream);
    uint64_t end = g->first + g->pages;
    for (size_t i = memory_find(m, s, g->first); i < s->first + s->n; i++) {
        const struct memory_extent *e = &m->extents[i];
        uint64_t from = e->page > g->first ? e->page : g->first;
        uint64_t to = e->page + e->pages < end ? e->page + e->pages : end;
        if (e->page >= end)
            break;
        if (e->chunk == MEMORY_ZERO)
            regions_filled(r, g->address + (from - g->first) * REGIONS_PAGE, to - from);
    }
}

static enum rc take_task(struct server *v, const struct cr_lazy_message *m, struct err *err)
{
    const struct pager_options *o = v->s->o;
    struct regions r = {.missing = 0};
    for (size_t i = 0; i < o->n_gaps; i++) {
        const struct pager_gap *g = &o->gaps[i];
        if (g->pid != m->pid)
            continue;
        regions_add(&r, g->address, g->pages, g->stream, g->first);
        leave_out_zeros(v, &r, g);
    }
    v->s->shared->figures.missing_pages += r.missing;
    return add_space(v, space_new(m->uffd, m->pid, &r), err);
}

static void on_fault(void *arg, struct space *s, uint64_t address)
{
    const struct server *v = arg;
    crew_fault(v->crew, s, address);
}

/* ---- CRIU ---- */

static void report(const struct server *v)
{
    (void)!write(v->s->report, "", 1);
}

/* Whether the rest is brought in at once, or waits until the record of what the program touches is
 * complete: nobody can tell what it touches of what is there already. */
static void maybe_fill(struct server *v)
{
    const struct pager_shared *shared = v->s->shared;
    uint64_t begun = shared->figures.registered_ns, now = clock_now();
    uint64_t touched = __atomic_load_n(&v->record.last_ns, __ATOMIC_RELAXED);
    bool far = page_reader_pace(v->s->o->pages).reads > 0;
    uint64_t limit = v->s->o->record_ns ? v->s->o->record_ns : far ? RECORD_FAR_NS : RECORD_NS;
    if (!begun)
        return;
    bool quiet = now > (touched > begun ? touched : begun) + RECORD_QUIET_NS;
    bool complete = now > begun + limit || __atomic_load_n(&shared->ready, __ATOMIC_RELAXED);
    if (complete)
        record_close(&v->record);
    if (v->filling || !(v->has_set || !v->s->o->record || complete || quiet))
        return;
    v->filling = true;
    crew_fill(v->crew);
}

static enum rc on_connection(struct server *v, struct err *err)
{
    struct cr_lazy_message m;
    enum rc rc = cr_lazy_receive(v->connection, &m, err);
    if (rc)
        return rc;
    if (m.kind == CR_LAZY_TASK)
        return take_task(v, &m, err);
    if (m.kind != CR_LAZY_FINISHED)
        return RC_OK;
    fd_closep(&v->connection);
    v->s->shared->figures.registered_ns = clock_now();
    crew_registered(v->crew);
    __atomic_store_n(&v->s->shared->registered, true, __ATOMIC_RELEASE);
    report(v);
    maybe_fill(v);
    return RC_OK;
}

static enum rc on_socket(struct server *v, struct err *err)
{
    if (v->connection >= 0)
        return RC_OK;
    v->connection = accept4(v->s->socket, NULL, NULL, SOCK_CLOEXEC);
    if (v->connection < 0)
        return err_sys(err, "take CRIU's connection");
    return watch(v, v->connection, &v->connection, err);
}

/* ---- the loop ---- */

/* Forked processes are met while their parent's events are read. */
struct forks {
    struct server *server;
    enum rc rc;
    struct err *err;
};

static void on_fault_of(void *arg, struct space *s, uint64_t address)
{
    const struct forks *f = arg;
    on_fault(f->server, s, address);
}

static void on_forked(void *arg, struct space *child)
{
    struct forks *f = arg;
    enum rc rc = add_space(f->server, child, f->rc ? NULL : f->err);
    f->rc = f->rc ? f->rc : rc;
}

static enum rc on_space(struct server *v, struct space *s, struct err *err)
{
    struct err unwatched = ERR_INIT;
    struct forks f = {.server = v, .err = &unwatched};
    struct space_hooks hooks = {.fault = on_fault_of, .forked = on_forked, .arg = &f};
    enum rc rc = space_events(s, &hooks, err);
    if (!rc && f.rc && err)
        *err = unwatched;
    return rc ? rc : f.rc;
}

static bool all_in(const struct server *v)
{
    bool in = v->s->shared->figures.registered_ns != 0;
    for (size_t i = 0; in && i < v->n_spaces; i++)
        in = space_missing(v->spaces[i]) == 0;
    for (size_t i = 0; in && i < v->n_spaces; i++)
        in = space_finish(v->spaces[i]);
    return in;
}

static bool is_over(const struct server *v)
{
    return __atomic_load_n(&v->s->shared->over, __ATOMIC_RELAXED);
}

static enum rc on_ready(struct server *v, void *what, struct err *err)
{
    uint64_t count;
    if (what == &v->s->socket)
        return on_socket(v, err);
    if (what == &v->connection)
        return v->connection < 0 ? RC_OK : on_connection(v, err);
    if (what == &v->s->report)
        return err_set(err, RC_CANCELLED, "who had started the restore has ended");
    if (what == &v->s->guardian)
        return err_set(err, RC_CANCELLED, "the pager's guardian was killed");
    if (what == &v->news) {
        (void)!read(v->news, &count, sizeof(count));
        return crew_trouble(v->crew, err);
    }
    return on_space(v, what, err);
}

static enum rc loop(struct server *v, struct err *err)
{
    struct epoll_event events[32];
    enum rc rc = RC_OK;
    while (!is_over(v)) {
        int n = epoll_wait(v->epoll, events, ARRAY_LEN(events), TICK_MS);
        if (n < 0 && errno != EINTR)
            return err_sys(err, "wait for events");
        for (int i = 0; !rc && i < n; i++)
            rc = on_ready(v, events[i].data.ptr, err);
        /* CRIU has given up; whoever had started it says what becomes of us. */
        if (rc == RC_CANCELLED && v->connection >= 0 && !v->s->shared->figures.registered_ns) {
            fd_closep(&v->connection);
            rc = RC_OK;
        }
        if (rc)
            return rc;
        maybe_fill(v);
        if (v->filling && all_in(v))
            return RC_OK;
    }
    return RC_OK;
}

/* ---- begin and end ---- */

/* Ours from now on: a copy in our memory, and descriptors of our own. */
static void take_set(struct server *v)
{
    const struct pager_options *o = v->s->o;
    if (!o->set)
        return;
    v->set = *o->set;
    v->has_set = true;
    if (o->use_record)
        workingset_fetch(&v->set);
}

/* Threads that wait for a network take no processor meanwhile. */
static unsigned threads_for(const struct page_reader *pages)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned n = cpus < 1 ? 1 : cpus > THREADS_MAX ? THREADS_MAX : (unsigned)cpus;
    unsigned reads = page_reader_pace(pages).reads;
    return reads > n ? reads : n;
}

static enum rc begin(struct server *v, struct err *err)
{
    v->epoll = epoll_create1(EPOLL_CLOEXEC);
    v->news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (v->epoll < 0 || v->news < 0)
        return err_sys(err, "make descriptors");
    take_set(v);
    bool use = v->has_set && v->s->o->use_record;
    struct crew_options o = {.pages = v->s->o->pages,
                             .workingset = use ? &v->set : NULL,
                             .gaps = v->s->o->gaps,
                             .n_gaps = v->s->o->n_gaps,
                             .record = &v->record,
                             .threads = threads_for(v->s->o->pages),
                             .news = v->news,
                             .figures = &v->s->shared->figures};
    v->s->shared->figures.workingset_pages = use ? v->set.pages : 0;
    enum rc rc = crew_new(&o, &v->crew, err);
    if (!rc)
        rc = watch(v, v->news, &v->news, err);
    if (!rc)
        rc = watch(v, v->s->socket, (void *)(uintptr_t)&v->s->socket, err);
    if (!rc)
        rc = watch(v, v->s->report, (void *)(uintptr_t)&v->s->report, err);
    if (!rc && v->s->guardian >= 0)
        rc = watch(v, v->s->guardian, (void *)(uintptr_t)&v->s->guardian, err);
    return rc;
}

/* Another restore, which has begun at the same time. */
static bool others_were_first(const struct server *v)
{
    const struct pager_options *o = v->s->o;
    CLEANUP(workingset_done) struct workingset theirs = WORKINGSET_INIT;
    return !v->has_set && workingset_open(o->record, o->memory, &theirs, NULL) == RC_OK;
}

/* A record is a hint: what prevents it is nobody's trouble. */
static void write_record(struct server *v)
{
    const struct pager_options *o = v->s->o;
    CLEANUP(mem_freep) struct workingset_extent *extents = NULL;
    size_t known = v->has_set ? v->set.n_extents : 0;
    size_t n = record_extents(&v->record, v->set.extents, known, &extents);
    uint64_t pages = 0, fresh = 0;
    for (size_t i = 0; i < n; i++) {
        pages += extents[i].pages;
        fresh += i >= known ? extents[i].pages : 0;
    }
    if (fresh == 0 || (known && fresh < REFINE_MIN) || pages > WORKINGSET_PAGES_MAX ||
        others_were_first(v))
        return;
    if (workingset_write(o->record, o->memory, extents, n, o->pages, NULL) == RC_OK)
        v->s->shared->figures.recorded_pages = pages;
}

struct tidying {
    const struct pager_shared *shared;
    struct pace pace;
};

static bool may_tidy(void *arg)
{
    struct tidying *t = arg;
    uint64_t pause = pace_pause(&t->pace);
    struct timespec rest = {0, (long)pause};
    if (pause > 0)
        (void)nanosleep(&rest, NULL);
    return !__atomic_load_n(&t->shared->over, __ATOMIC_RELAXED);
}

static void tidy(const struct serve *s)
{
    struct tidying t = {.shared = s->shared};
    pace_init(&t.pace, TIDY_PAUSE_NS);
    pace_behind(&t.pace);
    s->o->tidy(s->o->arg, may_tidy, &t);
    pace_done(&t.pace);
}

static void finish(struct server *v)
{
    crew_freep(&v->crew);
    for (size_t i = 0; i < v->n_spaces; i++)
        space_free(v->spaces[i]);
    free(v->spaces);
    workingset_done(&v->set);
    record_done(&v->record);
    fd_closep(&v->epoll);
    fd_closep(&v->news);
    fd_closep(&v->connection);
}

/* If it fails, threads go on with what they have in hand, which names the server, until the process
 * ends: it stays, and nothing is closed, since what is missing must stay missing until all are
 * dead. */
enum rc serve_run(const struct serve *s, struct err *err)
{
    struct server *v = mem_zalloc(sizeof(*v));
    *v = (struct server){.s = s, .epoll = -1, .news = -1, .connection = -1, .set = WORKINGSET_INIT};
    record_init(&v->record);
    if (!s->o->record)
        record_close(&v->record);
    enum rc rc = begin(v, err);
    if (!rc)
        rc = loop(v, err);
    if (rc)
        return rc;
    if (is_over(v))
        s->o->kill(s->o->arg);
    s->shared->figures.filled_ns = clock_now();
    __atomic_store_n(&s->shared->state, PAGER_FILLED, __ATOMIC_RELEASE);
    report(v);
    record_close(&v->record);
    if (s->shared->registered && s->o->record)
        write_record(v);
    finish(v);
    free(v);
    if (s->o->tidy && s->shared->registered)
        tidy(s);
    return RC_OK;
}

#include "engine/fill.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "container/proc_tree.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define THREADS_MAX 32
#define BATCH_PAGES ((uint64_t)1024) /* of one gap, that a thread takes at once: two huge pages */

struct fill {
    const struct view *view;
    const struct page_reader *pages;
    struct proc_facts *tasks;
    size_t n_tasks;
    uint64_t *done;

    pthread_mutex_t lock; /* everything below */
    size_t gap;           /* the next batch: a gap, and how far it is taken */
    uint64_t taken;
    enum rc rc;
    struct err err;
};

/* What one thread needs. */
struct hand {
    struct fill *fill;
    uint8_t *scratch, *pages; /* MEMORY_CHUNK each */
    uint32_t chunk;           /* that is in `pages`, MEMORY_ZERO = none */
};

struct batch {
    pid_t pid;
    uint32_t stream;
    uint64_t address, first, n;
};

static pid_t outer_pid(const struct fill *f, uint32_t inner)
{
    for (size_t i = 0; i < f->n_tasks; i++)
        if ((uint32_t)f->tasks[i].inner == inner)
            return f->tasks[i].pid;
    return 0;
}

/* Batches end at multiples of their size in memory, so that one thread faults in one huge page. */
static bool next_batch(struct fill *f, struct batch *out)
{
    (void)pthread_mutex_lock(&f->lock);
    bool there = !f->rc && f->gap < f->view->n_gaps;
    if (there) {
        const struct pager_gap *g = &f->view->gaps[f->gap];
        uint64_t address = g->address + f->taken * MEMORY_PAGE;
        uint64_t room = BATCH_PAGES - address / MEMORY_PAGE % BATCH_PAGES;
        uint64_t n = g->pages - f->taken < room ? g->pages - f->taken : room;
        *out = (struct batch){.pid = (pid_t)g->pid, /* for now the inner one */
                              .stream = g->stream,
                              .address = address,
                              .first = g->first + f->taken,
                              .n = n};
        f->taken += n;
        if (f->taken == g->pages) {
            f->gap++;
            f->taken = 0;
        }
    }
    (void)pthread_mutex_unlock(&f->lock);
    return there;
}

static enum rc write_pages(const struct batch *b, const void *data, uint64_t n, struct err *err)
{
    struct iovec from = {(void *)(uintptr_t)data, n * MEMORY_PAGE};
    // NOLINTNEXTLINE(performance-no-int-to-ptr): an address of another process
    struct iovec to = {(void *)(uintptr_t)b->address, n * MEMORY_PAGE};
    ssize_t got = process_vm_writev(b->pid, &from, 1, &to, 1, 0);
    if (got == (ssize_t)(n * MEMORY_PAGE))
        return RC_OK;
    if (got >= 0)
        errno = EFAULT;
    return err_sys(err, "write memory of process %d at %#jx", (int)b->pid, (uintmax_t)b->address);
}

static enum rc fill_batch(struct hand *h, struct batch *b, struct err *err)
{
    const struct memory *m = page_reader_memory(h->fill->pages);
    const struct memory_stream *s = memory_stream(m, b->stream);
    for (size_t i = memory_find(m, s, b->first); b->n > 0; i++) {
        const struct memory_extent *e = &m->extents[i];
        uint64_t skip = b->first - e->page, n = e->pages - skip < b->n ? e->pages - skip : b->n;
        enum rc rc = RC_OK;
        if (e->chunk != MEMORY_ZERO && e->chunk != h->chunk) {
            rc = page_reader_chunk(h->fill->pages, e->chunk, h->scratch, h->pages, err);
            h->chunk = rc ? MEMORY_ZERO : e->chunk;
        }
        if (!rc && e->chunk != MEMORY_ZERO) /* fresh memory is zero */
            rc = write_pages(b, h->pages + (e->at + skip) * MEMORY_PAGE, n, err);
        if (rc)
            return rc;
        if (h->fill->done)
            (void)__atomic_fetch_add(h->fill->done, n * MEMORY_PAGE, __ATOMIC_RELAXED);
        b->address += n * MEMORY_PAGE;
        b->first += n;
        b->n -= n;
    }
    return RC_OK;
}

static void *work(void *arg)
{
    struct fill *f = arg;
    CLEANUP(mem_freep) uint8_t *buffers = mem_alloc(2 * MEMORY_CHUNK);
    struct hand h = {f, buffers, buffers + MEMORY_CHUNK, MEMORY_ZERO};
    struct batch b;
    while (next_batch(f, &b)) {
        struct err err = ERR_INIT;
        uint32_t inner = (uint32_t)b.pid;
        b.pid = outer_pid(f, inner);
        enum rc rc = b.pid ? fill_batch(&h, &b, &err)
                           : err_set(&err, RC_NOT_FOUND, "process %u was not restored", inner);
        if (!rc)
            continue;
        (void)pthread_mutex_lock(&f->lock);
        if (!f->rc) {
            f->rc = rc;
            f->err = err;
        }
        (void)pthread_mutex_unlock(&f->lock);
    }
    return NULL;
}

enum rc fill_gaps(const struct view *v, const struct page_reader *pages, pid_t in_namespace,
                  // NOLINTNEXTLINE(readability-non-const-parameter): counted up through the work
                  uint64_t *done, struct err *err)
{
    struct fill f = {.view = v, .pages = pages, .done = done, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t others[THREADS_MAX];
    unsigned started = 0;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    if (v->n_gaps == 0)
        return RC_OK;
    enum rc rc = proc_in_namespace(in_namespace, &f.tasks, &f.n_tasks, err);
    if (rc)
        return rc;
    while ((long)started + 1 < cpus && started < THREADS_MAX &&
           pthread_create(&others[started], NULL, work, &f) == 0)
        started++;
    (void)work(&f);
    for (unsigned i = 0; i < started; i++)
        (void)pthread_join(others[i], NULL);
    (void)pthread_mutex_destroy(&f.lock);
    free(f.tasks);
    if (f.rc && err)
        *err = f.err;
    return f.rc ? err_ctx(err, f.rc, "bring in memory") : RC_OK;
}

#include "engine/fill.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "container/proc_tree.h"
#include "store/page_scan.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>

#define PIECES_MAX 64U /* written at once */

struct fill {
    struct page_scan *scan;
    struct proc_facts *tasks; /* constant while threads write */
    size_t n_tasks;
    uint64_t *done;
};

static pid_t outer_pid(const struct fill *f, uint32_t inner)
{
    for (size_t i = 0; i < f->n_tasks; i++)
        if ((uint32_t)f->tasks[i].inner == inner)
            return f->tasks[i].pid;
    return 0;
}

/* Pieces of one process. */
static enum rc write_pieces(const struct fill *f, const struct page_piece *pieces, size_t n,
                            const uint8_t *pages, struct err *err)
{
    struct iovec from[PIECES_MAX], to[PIECES_MAX];
    size_t bytes = 0;
    pid_t pid = outer_pid(f, pieces->place);
    if (!pid)
        return err_set(err, RC_NOT_FOUND, "process %u was not restored", pieces->place);
    for (size_t i = 0; i < n; i++) {
        size_t len = pieces[i].pages * MEMORY_PAGE;
        const uint8_t *data = pages + pieces[i].at * MEMORY_PAGE;
        from[i] = (struct iovec){(void *)(uintptr_t)data, len};
        // NOLINTNEXTLINE(performance-no-int-to-ptr): an address of another process
        to[i] = (struct iovec){(void *)(uintptr_t)pieces[i].to, len};
        bytes += len;
    }
    ssize_t got = process_vm_writev(pid, from, n, to, n, 0);
    if (got >= 0 && (size_t)got != bytes)
        errno = EFAULT;
    if (got < 0 || (size_t)got != bytes)
        return err_sys(err, "write memory of process %d at %#jx", (int)pid, (uintmax_t)pieces->to);
    if (f->done)
        (void)__atomic_fetch_add(f->done, bytes, __ATOMIC_RELAXED);
    return RC_OK;
}

static enum rc write_chunk(void *arg, const struct page_piece *pieces, size_t n,
                           const uint8_t *pages, struct err *err)
{
    enum rc rc = RC_OK;
    for (size_t i = 0, k; !rc && i < n; i = k) {
        for (k = i + 1; k < n && k - i < PIECES_MAX && pieces[k].place == pieces[i].place; k++)
            continue;
        rc = write_pieces(arg, pieces + i, k - i, pages, err);
    }
    return rc;
}

enum rc fill_begin(const struct view *v, const struct page_reader *pages, uint64_t *done,
                   struct fill **out, struct err *err)
{
    CLEANUP(fill_freep) struct fill *f = mem_zalloc(sizeof(*f));
    f->done = done;
    f->scan = page_scan_new(pages);
    for (size_t i = 0; i < v->n_gaps; i++) {
        const struct pager_gap *g = &v->gaps[i];
        enum rc rc =
            page_scan_want(f->scan, g->stream, g->first, g->pages, g->pid, g->address, err);
        if (rc)
            return rc;
    }
    if (done) /* fresh memory is zero */
        *done = v->gap_bytes - page_scan_pages(f->scan) * MEMORY_PAGE;
    page_scan_begin(f->scan, write_chunk, f);
    *out = STEAL(f);
    return RC_OK;
}

enum rc fill_finish(struct fill *f, pid_t in_namespace, struct err *err)
{
    enum rc rc = proc_in_namespace(in_namespace, &f->tasks, &f->n_tasks, err);
    if (!rc)
        rc = page_scan_finish(f->scan, err);
    return rc ? err_ctx(err, rc, "bring in memory") : RC_OK;
}

void fill_freep(struct fill **p)
{
    struct fill *f = STEAL(*p);
    if (!f)
        return;
    page_scan_freep(&f->scan);
    free(f->tasks);
    free(f);
}

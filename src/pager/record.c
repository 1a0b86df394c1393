#include "pager/record.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define WINDOW ((size_t)8192) /* touches whose order among each other does not matter: 32 MiB */

void record_init(struct record *r)
{
    *r = (struct record){.lock = PTHREAD_MUTEX_INITIALIZER};
}

void record_add(struct record *r, uint32_t stream, uint64_t page)
{
    if (__atomic_load_n(&r->closed, __ATOMIC_RELAXED))
        return;
    (void)pthread_mutex_lock(&r->lock);
    if (r->n < WORKINGSET_PAGES_MAX) {
        if ((r->n & (r->n - 1)) == 0)
            r->list = mem_realloc(r->list, (r->n ? r->n * 2 : 1) * sizeof(*r->list));
        r->list[r->n++] = (struct record_page){stream, page};
    }
    (void)pthread_mutex_unlock(&r->lock);
    __atomic_store_n(&r->last_ns, clock_now(), __ATOMIC_RELAXED);
}

void record_close(struct record *r)
{
    __atomic_store_n(&r->closed, true, __ATOMIC_RELAXED);
}

/* ---- extents ---- */

struct touch {
    struct record_page page;
    size_t order;
};

static int compare_pages(const struct record_page *a, const struct record_page *b)
{
    if (a->stream != b->stream)
        return a->stream < b->stream ? -1 : 1;
    return a->page < b->page ? -1 : a->page > b->page;
}

static int by_page_then_order(const void *a, const void *b)
{
    const struct touch *x = a, *y = b;
    int c = compare_pages(&x->page, &y->page);
    return c ? c : (x->order > y->order) - (x->order < y->order);
}

static int by_window(const void *a, const void *b)
{
    const struct touch *x = a, *y = b;
    size_t i = x->order / WINDOW, k = y->order / WINDOW;
    return i != k ? (i > k) - (i < k) : compare_pages(&x->page, &y->page);
}

static int by_begin(const void *a, const void *b)
{
    const struct workingset_extent *x = a, *y = b;
    if (x->stream != y->stream)
        return x->stream < y->stream ? -1 : 1;
    return (x->first > y->first) - (x->first < y->first);
}

static bool is_in(const struct workingset_extent *sorted, size_t n, const struct record_page *p)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct workingset_extent *e = &sorted[middle];
        if (e->stream < p->stream || (e->stream == p->stream && e->first + e->pages <= p->page))
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && sorted[low].stream == p->stream && sorted[low].first <= p->page;
}

/* Keep the first touch of each page that is not in `sorted`. */
static size_t first_touches(struct touch *list, size_t n, const struct workingset_extent *sorted,
                            size_t n_sorted)
{
    size_t kept = 0;
    qsort(list, n, sizeof(*list), by_page_then_order);
    for (size_t i = 0; i < n; i++) {
        bool again = i > 0 && compare_pages(&list[i].page, &list[i - 1].page) == 0;
        if (!again && !is_in(sorted, n_sorted, &list[i].page))
            list[kept++] = list[i];
    }
    /* `list[i - 1]` above is intact: kept never passes i. */
    return kept;
}

size_t record_extents(struct record *r, const struct workingset_extent *before, size_t n_before,
                      struct workingset_extent **out)
{
    (void)pthread_mutex_lock(&r->lock);
    size_t n = r->n, count = n_before;
    CLEANUP(mem_freep) struct touch *list = mem_alloc((n + 1) * sizeof(*list));
    for (size_t i = 0; i < n; i++)
        list[i] = (struct touch){r->list[i], i};
    (void)pthread_mutex_unlock(&r->lock);
    struct workingset_extent *extents = mem_alloc((n + n_before + 1) * sizeof(*extents));
    if (n_before)
        memcpy(extents, before, n_before * sizeof(*extents));
    if (n_before > 1)
        qsort(extents, n_before, sizeof(*extents), by_begin);
    n = n ? first_touches(list, n, extents, n_before) : 0;
    if (n_before)
        memcpy(extents, before, n_before * sizeof(*extents));
    if (n > 1)
        qsort(list, n, sizeof(*list), by_window);
    for (size_t i = 0; i < n; i++) {
        struct workingset_extent *last = count > n_before ? &extents[count - 1] : NULL;
        const struct record_page *p = &list[i].page;
        if (last && last->stream == p->stream && last->first + last->pages == p->page)
            last->pages++;
        else
            extents[count++] = (struct workingset_extent){p->stream, 1, p->page};
    }
    *out = extents;
    return count;
}

void record_done(struct record *r)
{
    free(r->list);
    (void)pthread_mutex_destroy(&r->lock);
    *r = (struct record){.closed = true};
}

#include "engine/page_image.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "engine/copier.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NEW_NAME "page-image.new" /* no name that a page image could have */
#define STEP_PAGES 64U            /* that are read, digested and written at once */
#define SEGMENT_PAGES (DIGEST_SEGMENT / MEMORY_PAGE)
#define THREADS_MAX 16U

struct job {
    const struct page_image *image;
    int old, new;
    uint64_t *done;
    struct digest *digests; /* of segments, each its thread's */
    uint64_t segments;
    uint64_t next; /* atomic */
    pthread_mutex_t lock;
    enum rc rc; /* the first failure */
    struct err err;
};

void page_image_add(struct page_image *p, pid_t pid, uint64_t from, uint64_t pages)
{
    if ((p->n & (p->n - 1)) == 0)
        p->list = mem_realloc(p->list, (p->n ? p->n * 2 : 1) * sizeof(*p->list));
    p->list[p->n++] =
        (struct page_image_piece){.pid = pid, .from = from, .at = p->pages, .pages = pages};
    p->pages += pages;
}

void page_image_done(struct page_image *p)
{
    free(p->list);
    *p = (struct page_image){0};
}

static enum rc read_image(int fd, uint64_t from, uint8_t *to, size_t len, struct err *err)
{
    while (len > 0) {
        ssize_t n = pread(fd, to, len, (off_t)from);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(err, "read a page image");
        if (n == 0)
            return err_set(err, RC_CORRUPT, "CRIU's page image is shorter than its page map says");
        from += (uint64_t)n;
        to += n;
        len -= (size_t)n;
    }
    return RC_OK;
}

/* The piece that holds a page of the new image. */
static const struct page_image_piece *piece_of(const struct page_image *p, uint64_t page)
{
    size_t low = 0, high = p->n;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (p->list[middle].at <= page)
            low = middle;
        else
            high = middle;
    }
    return &p->list[low];
}

/* Pages at..at+n-1 of the new image. */
static enum rc read_pages(const struct job *j, struct copier_source *source, uint64_t at,
                          uint64_t n, uint8_t *to, struct err *err)
{
    enum rc rc = RC_OK;
    for (const struct page_image_piece *p = piece_of(j->image, at); !rc && n > 0; p++) {
        uint64_t skip = at - p->at, left = p->pages - skip, some = left < n ? left : n;
        uint64_t from = p->from + skip * MEMORY_PAGE;
        size_t len = (size_t)some * MEMORY_PAGE;
        rc = p->pid ? copier_read(source, p->pid, from, to, len, err)
                    : read_image(j->old, from, to, len, err);
        at += some;
        n -= some;
        to += len;
    }
    return rc;
}

struct worker {
    struct job *job;
    struct copier_source source;
    struct digest_sum *sum;
    uint8_t *buf; /* STEP_PAGES */
};

static enum rc write_segment(struct worker *w, uint64_t i, struct err *err)
{
    const struct job *j = w->job;
    uint64_t at = i * SEGMENT_PAGES, end = at + SEGMENT_PAGES;
    end = end < j->image->pages ? end : j->image->pages;
    for (uint64_t n; at < end; at += n) {
        n = end - at < STEP_PAGES ? end - at : STEP_PAGES;
        size_t len = (size_t)n * MEMORY_PAGE;
        enum rc rc = read_pages(j, &w->source, at, n, w->buf, err);
        if (!rc)
            rc = sys_pwrite_all(j->new, w->buf, len, at * MEMORY_PAGE, err);
        if (rc)
            return rc;
        digest_sum_add(w->sum, w->buf, len);
        (void)__atomic_fetch_add(j->done, len, __ATOMIC_RELAXED);
    }
    digest_sum_take(w->sum, &j->digests[i]);
    return RC_OK;
}

static void work_through(struct worker *w)
{
    struct job *j = w->job;
    for (;;) {
        struct err err = ERR_INIT;
        uint64_t i = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED);
        if (i >= j->segments)
            return;
        enum rc rc = cancel_asked(j->image->cancel) ? cancel_error(j->image->cancel, &err)
                                                    : write_segment(w, i, &err);
        if (!rc)
            continue;
        __atomic_store_n(&j->next, j->segments, __ATOMIC_RELAXED); /* the others may stop */
        (void)pthread_mutex_lock(&j->lock);
        if (!j->rc) {
            j->rc = rc;
            j->err = err;
        }
        (void)pthread_mutex_unlock(&j->lock);
        return;
    }
}

static void *work(void *arg)
{
    struct worker w = {.job = arg};
    w.sum = digest_sum_new();
    w.buf = mem_alloc(STEP_PAGES * MEMORY_PAGE);
    work_through(&w);
    copier_source_done(&w.source);
    digest_sum_freep(&w.sum);
    free(w.buf);
    return NULL;
}

static enum rc run(struct job *j, struct err *err)
{
    pthread_t others[THREADS_MAX];
    unsigned started = 0, wanted = copier_threads();
    wanted = wanted < THREADS_MAX ? wanted : THREADS_MAX;
    while (started + 1 < wanted && started + 1 < j->segments &&
           pthread_create(&others[started], NULL, work, j) == 0)
        started++;
    (void)work(j);
    for (unsigned i = 0; i < started; i++)
        (void)pthread_join(others[i], NULL);
    if (j->rc && err)
        *err = j->err;
    return j->rc;
}

static enum rc write_new(struct job *j, int dirfd, const char *name, struct digest *out,
                         struct err *err)
{
    CLEANUP(fd_closep)
    int new = sys_openat(dirfd, NEW_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
    if (new < 0)
        return err_sys(err, "make a page image");
    j->new = new;
    j->segments = (j->image->pages + SEGMENT_PAGES - 1) / SEGMENT_PAGES;
    CLEANUP(mem_freep) struct digest *digests = mem_alloc((j->segments + 1) * sizeof(*digests));
    j->digests = digests;
    enum rc rc = run(j, err);
    if (!rc && sys_rename(dirfd, NEW_NAME, name, 0) < 0)
        rc = err_sys(err, "put a page image into its place");
    if (!rc)
        digest_of_segments(digests, j->image->pages * MEMORY_PAGE, out);
    return rc;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): `done` is counted up by the threads */
enum rc page_image_write(const struct page_image *p, int dirfd, const char *name, uint64_t *done,
                         struct digest *out, struct err *err)
{
    CLEANUP(fd_closep) int old = sys_openat(dirfd, name, O_RDONLY | O_NOFOLLOW, 0);
    if (old < 0)
        return err_sys(err, "open '%s'", name);
    struct job j = {
        .image = p, .old = old, .new = -1, .done = done, .lock = PTHREAD_MUTEX_INITIALIZER};
    enum rc rc = write_new(&j, dirfd, name, out, err);
    (void)pthread_mutex_destroy(&j.lock);
    if (rc)
        (void)sys_unlinkat(dirfd, NEW_NAME, 0);
    return rc ? err_ctx(err, rc, "page image '%s'", name) : RC_OK;
}

#include "engine/plain_fill.h"

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
#define SEGMENT_PAGES ((uint64_t)(DIGEST_SEGMENT / MEMORY_PAGE))
#define PIECE_PAGES ((uint64_t)64) /* that stay in a CPU's own cache meanwhile */

struct filling {
    const struct plain *plain;
    struct digest **segments; /* of each image, as far as they are known */
    struct proc_facts *tasks;
    size_t n_tasks;
    uint64_t *done;

    pthread_mutex_t lock; /* everything below */
    size_t at;            /* the next segment: of which image, and which one */
    uint64_t taken;
    enum rc rc;
    struct err err;
};

static enum rc find_task(const struct filling *f, uint32_t inner, pid_t *out, struct err *err)
{
    for (size_t i = 0; i < f->n_tasks; i++)
        if ((uint32_t)f->tasks[i].inner == inner) {
            *out = f->tasks[i].pid;
            return RC_OK;
        }
    return err_set(err, RC_NOT_FOUND, "process %u was not restored", inner);
}

static enum rc write_pages(pid_t pid, uint64_t address, const void *data, uint64_t n,
                           struct err *err)
{
    struct iovec from = {(void *)(uintptr_t)data, n * MEMORY_PAGE};
    // NOLINTNEXTLINE(performance-no-int-to-ptr): an address of another process
    struct iovec to = {(void *)(uintptr_t)address, n * MEMORY_PAGE};
    ssize_t got = process_vm_writev(pid, &from, 1, &to, 1, 0);
    if (got == (ssize_t)(n * MEMORY_PAGE))
        return RC_OK;
    if (got >= 0)
        errno = EFAULT;
    return err_sys(err, "write memory of process %d at %#jx", (int)pid, (uintmax_t)address);
}

static void count(const struct filling *f, uint64_t pages)
{
    if (f->done)
        (void)__atomic_fetch_add(f->done, pages * MEMORY_PAGE, __ATOMIC_RELAXED);
}

static void fail(struct filling *f, enum rc rc, const struct err *err)
{
    (void)pthread_mutex_lock(&f->lock);
    if (!f->rc) {
        f->rc = rc;
        f->err = *err;
    }
    (void)pthread_mutex_unlock(&f->lock);
}

/* Let one thread for each CPU do the work, ours among them. */
static enum rc work_together(struct filling *f, void *(*work)(void *), pid_t in_namespace,
                             struct err *err)
{
    pthread_t others[THREADS_MAX];
    unsigned started = 0;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    enum rc rc = proc_in_namespace(in_namespace, &f->tasks, &f->n_tasks, err);
    if (rc)
        return rc;
    (void)pthread_mutex_init(&f->lock, NULL);
    while ((long)started + 1 < cpus && started < THREADS_MAX &&
           pthread_create(&others[started], NULL, work, f) == 0)
        started++;
    (void)work(f);
    for (unsigned i = 0; i < started; i++)
        (void)pthread_join(others[i], NULL);
    (void)pthread_mutex_destroy(&f->lock);
    free(f->tasks);
    if (f->rc && err)
        *err = f->err;
    return f->rc ? err_ctx(err, f->rc, "bring in memory") : RC_OK;
}

/* What one thread has in hand of an image. */
struct piece {
    const struct filling *fill;
    const struct plain_image *image;
    pid_t pid; /* outer; 0: all of it is kept */
    uint64_t first, n;
    uint8_t *data;
};

static bool next_segment(struct filling *f, size_t *out_image, uint64_t *out_segment)
{
    (void)pthread_mutex_lock(&f->lock);
    while (f->at < f->plain->n_images &&
           f->taken * SEGMENT_PAGES >= f->plain->images[f->at].pages) {
        f->at++;
        f->taken = 0;
    }
    bool there = !f->rc && f->at < f->plain->n_images;
    *out_image = f->at;
    *out_segment = there ? f->taken++ : 0;
    (void)pthread_mutex_unlock(&f->lock);
    return there;
}

/* The part that holds a page. */
static const struct plain_part *part_of(const struct plain_image *i, uint64_t page)
{
    size_t low = 0, high = i->n_parts;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (i->parts[middle].first <= page)
            low = middle;
        else
            high = middle;
    }
    return &i->parts[low];
}

static enum rc read_pages(int fd, uint64_t first, uint64_t n, uint8_t *out, const char *name,
                          struct err *err)
{
    size_t want = n * MEMORY_PAGE;
    for (size_t got = 0; got < want;) {
        ssize_t r = pread(fd, out + got, want - got, (off_t)(first * MEMORY_PAGE + got));
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return err_sys(err, "read '%s'", name);
        if (r == 0)
            return err_set(err, RC_CORRUPT, "'%s' has become shorter", name);
        got += (size_t)r;
    }
    return RC_OK;
}

/* Call for what a piece has of each part. */
static enum rc each_part(const struct piece *p,
                         enum rc (*visit)(const struct piece *p, const struct plain_part *part,
                                          uint64_t skip, uint64_t n, uint8_t *data,
                                          struct err *err),
                         struct err *err)
{
    const struct plain_part *part = part_of(p->image, p->first);
    for (uint64_t at = 0; at < p->n; part++) {
        uint64_t skip = p->first + at - part->first, n = part->pages - skip;
        n = n < p->n - at ? n : p->n - at;
        enum rc rc = visit(p, part, skip, n, p->data + at * MEMORY_PAGE, err);
        if (rc)
            return rc;
        at += n;
    }
    return RC_OK;
}

static enum rc read_part(const struct piece *p, const struct plain_part *part, uint64_t skip,
                         uint64_t n, uint8_t *data, struct err *err)
{
    const struct plain_image *i = p->image;
    return part->address == PLAIN_KEPT
               ? read_pages(i->copy, part->at + skip, n, data, i->name, err)
               : read_pages(i->from, part->first + skip, n, data, i->name, err);
}

static enum rc write_part(const struct piece *p, const struct plain_part *part, uint64_t skip,
                          uint64_t n, uint8_t *data, struct err *err)
{
    if (part->address == PLAIN_KEPT)
        return RC_OK;
    enum rc rc = write_pages(p->pid, part->address + skip * MEMORY_PAGE, data, n, err);
    if (!rc)
        count(p->fill, n);
    return rc;
}

/* The bytes are hashed while they are in the cache, between reading and writing. */
static enum rc fill_segment(struct piece *p, struct digest_sum *hash, struct digest *out,
                            struct err *err)
{
    uint64_t end = p->first + p->n;
    for (; p->first < end; p->first += p->n) {
        p->n = end - p->first < PIECE_PAGES ? end - p->first : PIECE_PAGES;
        enum rc rc = each_part(p, read_part, err);
        if (!rc && p->image->has_digest)
            digest_sum_add(hash, p->data, p->n * MEMORY_PAGE);
        if (!rc)
            rc = each_part(p, write_part, err);
        if (rc)
            return rc;
    }
    digest_sum_take(hash, out);
    return RC_OK;
}

static void *work_on_images(void *arg)
{
    struct filling *f = arg;
    CLEANUP(mem_freep) uint8_t *data = mem_alloc(PIECE_PAGES * MEMORY_PAGE);
    CLEANUP(digest_sum_freep) struct digest_sum *hash = digest_sum_new();
    size_t image = 0;
    uint64_t segment = 0;
    while (next_segment(f, &image, &segment)) {
        struct err err = ERR_INIT;
        const struct plain_image *i = &f->plain->images[image];
        struct piece p = {.fill = f, .image = i, .first = segment * SEGMENT_PAGES, .data = data};
        p.n = i->pages - p.first < SEGMENT_PAGES ? i->pages - p.first : SEGMENT_PAGES;
        enum rc rc = i->pid ? find_task(f, i->pid, &p.pid, &err) : RC_OK;
        if (!rc)
            rc = fill_segment(&p, hash, &f->segments[image][segment], &err);
        if (rc)
            fail(f, rc, &err);
    }
    return NULL;
}

static enum rc compare(const struct plain_image *i, const struct digest *segments, struct err *err)
{
    struct digest d;
    digest_of_segments(segments, i->pages * MEMORY_PAGE, &d);
    return !i->has_digest || digest_equal(&d, &i->digest)
               ? RC_OK
               : err_set(err, RC_CORRUPT, "'%s' is damaged: its bytes do not match the manifest",
                         i->name);
}

/* NOLINTNEXTLINE(readability-non-const-parameter): `done` is counted up by the threads */
enum rc plain_fill(const struct plain *p, pid_t in_namespace, uint64_t *done, struct err *err)
{
    struct filling f = {.plain = p, .done = done};
    f.segments = mem_zalloc((p->n_images + 1) * sizeof(void *));
    for (size_t i = 0; i < p->n_images; i++)
        f.segments[i] = mem_zalloc((p->images[i].pages / SEGMENT_PAGES + 1) * sizeof(**f.segments));
    enum rc rc = work_together(&f, work_on_images, in_namespace, err);
    for (size_t i = 0; !rc && i < p->n_images; i++)
        rc = compare(&p->images[i], f.segments[i], err);
    for (size_t i = 0; i < p->n_images; i++)
        free(f.segments[i]);
    free(f.segments);
    return rc;
}

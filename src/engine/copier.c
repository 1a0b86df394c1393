#include "engine/copier.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define THREADS_MAX 16U

struct run {
    struct copier *copier;
    struct page_writer *writer;
    bool lenient;
    size_t next; /* atomic */
    pthread_mutex_t lock;
    enum rc rc;
    struct err err;
};

void copier_done(struct copier *c)
{
    free(c->list);
    *c = (struct copier){0};
}

unsigned copier_threads(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > (long)THREADS_MAX ? THREADS_MAX : (unsigned)n;
}

static void add_piece(struct copier *c, struct copier_piece p)
{
    if ((c->n & (c->n - 1)) == 0)
        c->list = mem_realloc(c->list, (c->n ? c->n * 2 : 1) * sizeof(*c->list));
    c->list[c->n++] = p;
}

void copier_add(struct copier *c, pid_t pid, uint64_t address, uint64_t pages,
                struct page_input *input, uint64_t first)
{
    for (uint64_t at = 0; at < pages;) {
        uint64_t left = pages - at;
        unsigned n = left < MEMORY_CHUNK_PAGES ? (unsigned)left : MEMORY_CHUNK_PAGES;
        add_piece(c, (struct copier_piece){.pid = pid,
                                           .address = address + at * MEMORY_PAGE,
                                           .input = input,
                                           .first = first + at,
                                           .n = n});
        at += n;
    }
}

void copier_source_done(struct copier_source *s)
{
    if (s->pid)
        fd_closep(&s->file);
    s->pid = 0;
}

static enum rc open_source(struct copier_source *s, pid_t pid, struct err *err)
{
    char path[40];
    if (s->pid == pid)
        return RC_OK;
    copier_source_done(s);
    (void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
    s->file = sys_openat(AT_FDCWD, path, O_RDONLY, 0);
    if (s->file < 0)
        return err_sys(err, "open '%s'", path);
    s->pid = pid;
    return RC_OK;
}

enum rc copier_read(struct copier_source *s, pid_t pid, uint64_t address, void *to, size_t len,
                    struct err *err)
{
    enum rc rc = open_source(s, pid, err);
    for (size_t got = 0; !rc && got < len;) {
        ssize_t n = pread(s->file, (uint8_t *)to + got, len - got, (off_t)(address + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = err_sys(err, "read memory of process %d at %#jx", (int)pid,
                         (uintmax_t)(address + got));
        else if (n == 0)
            rc = err_set(err, RC_NOT_FOUND, "process %d has ended", (int)pid);
        got += n > 0 ? (size_t)n : 0;
    }
    return rc;
}

static enum rc copy(const struct run *r, struct copier_source *s, struct copier_piece *p,
                    struct err *err)
{
    struct page_block *b = page_writer_take(r->writer, err);
    if (!b)
        return err->rc ? err->rc : RC_IO;
    enum rc rc = copier_read(s, p->pid, p->address, page_block_data(b), p->n * MEMORY_PAGE, err);
    p->lost = rc != RC_OK;
    page_writer_give(r->writer, b, p->input, p->first, p->lost ? 0 : p->n);
    return r->lenient ? RC_OK : rc;
}

static void *copy_all(void *arg)
{
    struct run *r = arg;
    CLEANUP(copier_source_done) struct copier_source source = {0};
    for (;;) {
        struct err err = ERR_INIT;
        size_t i = __atomic_fetch_add(&r->next, 1, __ATOMIC_RELAXED);
        if (i >= r->copier->n)
            return NULL;
        enum rc rc = cancel_asked(r->copier->cancel) ? cancel_error(r->copier->cancel, &err)
                                                     : copy(r, &source, &r->copier->list[i], &err);
        if (!rc)
            continue;
        __atomic_store_n(&r->next, r->copier->n, __ATOMIC_RELAXED); /* the others may stop */
        (void)pthread_mutex_lock(&r->lock);
        if (!r->rc) {
            r->rc = rc;
            r->err = err;
        }
        (void)pthread_mutex_unlock(&r->lock);
    }
}

enum rc copier_run(struct copier *c, struct page_writer *w, bool lenient, struct err *err)
{
    struct run r = {
        .copier = c, .writer = w, .lenient = lenient, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t others[THREADS_MAX];
    unsigned started = 0, wanted = copier_threads();
    page_writer_heed(w, c->cancel);
    while (started + 1 < wanted && pthread_create(&others[started], NULL, copy_all, &r) == 0)
        started++;
    (void)copy_all(&r);
    for (unsigned i = 0; i < started; i++)
        (void)pthread_join(others[i], NULL);
    page_writer_heed(w, NULL);
    (void)pthread_mutex_destroy(&r.lock);
    if (r.rc && err)
        *err = r.err;
    return r.rc;
}

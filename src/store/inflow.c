#include "store/inflow.h"

#include "base/compiler.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 16U

enum state { STATE_FREE, STATE_FETCHING, STATE_READY, STATE_FAILED };

/* Of block n the slot is n % INFLOW_SLOTS. */
struct slot {
    enum state state;
    uint64_t number;
    size_t left;      /* bytes of it that nobody has read yet */
    unsigned readers; /* who copy out of it */
    uint8_t *data;
};

struct inflow {
    struct backend_object *object;
    uint64_t begin, end; /* bytes of the object */
    pthread_t threads[THREADS_MAX];
    unsigned n_threads;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    struct slot slots[INFLOW_SLOTS];
    uint64_t next; /* block that is to be fetched */
    bool stop;
};

/* The bytes of a block that are expected to be read. */
static void bounds(const struct inflow *f, uint64_t number, uint64_t *out_from, uint64_t *out_to)
{
    uint64_t from = number * INFLOW_BLOCK;
    *out_to = f->end - from > INFLOW_BLOCK ? from + INFLOW_BLOCK : f->end;
    *out_from = from > f->begin ? from : f->begin;
}

/* ---- fetching ---- */

/* With the lock held: a slot for the next block, as soon as its last one has been read. */
static struct slot *take(struct inflow *f)
{
    while (!f->stop && f->next * INFLOW_BLOCK < f->end) {
        struct slot *s = &f->slots[f->next % INFLOW_SLOTS];
        if (s->state == STATE_FREE) {
            uint64_t from, to;
            bounds(f, f->next, &from, &to);
            s->state = STATE_FETCHING;
            s->number = f->next++;
            s->left = (size_t)(to - from);
            if (!s->data)
                s->data = mem_alloc(INFLOW_BLOCK);
            return s;
        }
        (void)pthread_cond_wait(&f->changed, &f->lock);
    }
    return NULL;
}

static void *fetch(void *arg)
{
    struct inflow *f = arg;
    struct slot *s;
    (void)pthread_mutex_lock(&f->lock);
    while ((s = take(f))) {
        uint64_t from, to;
        bounds(f, s->number, &from, &to);
        (void)pthread_mutex_unlock(&f->lock);
        uint8_t *data = s->data + (from - s->number * INFLOW_BLOCK);
        enum rc rc = backend_read(f->object, from, data, (size_t)(to - from), NULL);
        (void)pthread_mutex_lock(&f->lock);
        s->state = rc ? STATE_FAILED : STATE_READY;
        (void)pthread_cond_broadcast(&f->changed);
    }
    (void)pthread_mutex_unlock(&f->lock);
    return NULL;
}

struct inflow *inflow_new(struct backend_object *o, uint64_t begin, unsigned threads)
{
    struct inflow *f = mem_zalloc(sizeof(*f));
    *f = (struct inflow){.object = o, .begin = begin, .end = o->size, .next = begin / INFLOW_BLOCK};
    (void)pthread_mutex_init(&f->lock, NULL);
    (void)pthread_cond_init(&f->changed, NULL);
    for (; f->n_threads < threads && f->n_threads < THREADS_MAX; f->n_threads++)
        if (pthread_create(&f->threads[f->n_threads], NULL, fetch, f) != 0)
            break;
    if (f->n_threads == 0)
        inflow_freep(&f);
    return f;
}

void inflow_freep(struct inflow **flow)
{
    struct inflow *f = STEAL(*flow);
    if (!f)
        return;
    (void)pthread_mutex_lock(&f->lock);
    f->stop = true;
    (void)pthread_cond_broadcast(&f->changed);
    (void)pthread_mutex_unlock(&f->lock);
    for (unsigned i = 0; i < f->n_threads; i++)
        (void)pthread_join(f->threads[i], NULL);
    for (unsigned i = 0; i < INFLOW_SLOTS; i++)
        free(f->slots[i].data);
    (void)pthread_mutex_destroy(&f->lock);
    (void)pthread_cond_destroy(&f->changed);
    free(f);
}

/* ---- reading ---- */

/* With the lock held: the slot of a block once it was tried to fetch it; NULL when it is there no
 * more.  Waiting ends, since whoever has to read an earlier block waits for none that is later. */
static struct slot *await(struct inflow *f, uint64_t number)
{
    struct slot *s = &f->slots[number % INFLOW_SLOTS];
    for (;;) {
        bool is_it = s->state != STATE_FREE && s->number == number;
        if (is_it && s->state != STATE_FETCHING)
            return s;
        if (!is_it && number < f->next)
            return NULL;
        (void)pthread_cond_wait(&f->changed, &f->lock);
    }
}

/* With the lock held: so many bytes of a block need not be kept any longer. */
static void release(struct inflow *f, struct slot *s, size_t len)
{
    s->left -= len < s->left ? len : s->left;
    if (s->left > 0 || s->readers > 0)
        return;
    s->state = STATE_FREE;
    (void)pthread_cond_broadcast(&f->changed);
}

/* What is wanted of one block.
 * data     NULL: nobody wants it any more
 * returns  false: it is not there */
static bool copy(struct inflow *f, uint64_t offset, void *data, size_t len)
{
    uint64_t number = offset / INFLOW_BLOCK;
    (void)pthread_mutex_lock(&f->lock);
    struct slot *s = await(f, number);
    bool good = s && s->state == STATE_READY;
    if (good && data) {
        s->readers++;
        (void)pthread_mutex_unlock(&f->lock);
        memcpy(data, s->data + (offset - number * INFLOW_BLOCK), len);
        (void)pthread_mutex_lock(&f->lock);
        s->readers--;
    }
    if (s)
        release(f, s, len);
    (void)pthread_mutex_unlock(&f->lock);
    return good;
}

enum rc inflow_read(struct inflow *f, uint64_t offset, void *data, size_t len, struct err *err)
{
    uint8_t *to = data;
    enum rc rc = RC_OK;
    while (len > 0) {
        size_t room = INFLOW_BLOCK - (size_t)(offset % INFLOW_BLOCK), n = len < room ? len : room;
        bool inside = offset >= f->begin && offset < f->end && n <= f->end - offset;
        bool there = inside && copy(f, offset, rc ? NULL : to, n);
        if (!rc && !there)
            rc = backend_read(f->object, offset, to, n, err);
        to += n;
        offset += n;
        len -= n;
    }
    return rc;
}

#include "backend/ahead.h"

#include "base/compiler.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define NEAR ((uint64_t)4 << 20) /* threads that read together are not exactly in order */
#define RUN_MIN 6U               /* reads near each other before anything is fetched ahead */
#define DEPTH 6U                 /* blocks ahead */
#define BLOCKS_MAX 3U            /* that a read of AHEAD_READ_MAX touches */

enum state { STATE_FREE, STATE_FETCHING, STATE_READY, STATE_FAILED };

struct slot {
    struct ahead *ahead;
    enum state state;
    void *object;
    uint64_t number;
    uint64_t used;    /* by the count of uses */
    unsigned readers; /* that wait for it or copy */
    uint8_t *data;
    size_t len;
};

struct ahead {
    struct pool *pool;
    ahead_fetch *fetch;
    struct pool_group group;
    pthread_mutex_t lock; /* of everything below */
    pthread_cond_t done;
    struct slot slots[AHEAD_SLOTS];
    uint64_t uses;
};

static void set_up(struct ahead *a)
{
    (void)pthread_mutex_init(&a->lock, NULL);
    (void)pthread_cond_init(&a->done, NULL);
}

struct ahead *ahead_new(struct pool *pool, ahead_fetch *fetch)
{
    struct ahead *a = mem_zalloc(sizeof(*a));
    a->pool = pool;
    a->fetch = fetch;
    set_up(a);
    for (unsigned i = 0; i < AHEAD_SLOTS; i++)
        a->slots[i].ahead = a;
    return a;
}

void ahead_before_fork(struct ahead *a)
{
    (void)pthread_mutex_lock(&a->lock);
    for (unsigned i = 0; i < AHEAD_SLOTS; i++)
        while (a->slots[i].state == STATE_FETCHING)
            (void)pthread_cond_wait(&a->done, &a->lock);
    (void)pthread_mutex_unlock(&a->lock);
}

void ahead_after_fork(struct ahead *a)
{
    set_up(a);
    a->group = (struct pool_group){0};
}

void ahead_freep(struct ahead **ahead)
{
    struct ahead *a = STEAL(*ahead);
    if (!a)
        return;
    pool_wait(a->pool, &a->group);
    for (unsigned i = 0; i < AHEAD_SLOTS; i++)
        free(a->slots[i].data);
    (void)pthread_mutex_destroy(&a->lock);
    (void)pthread_cond_destroy(&a->done);
    free(a);
}

/* ---- slots; with the lock held ---- */

static struct slot *find(struct ahead *a, const void *object, uint64_t number)
{
    for (unsigned i = 0; i < AHEAD_SLOTS; i++) {
        struct slot *s = &a->slots[i];
        if (s->state != STATE_FREE && s->object == object && s->number == number)
            return s;
    }
    return NULL;
}

/* The one that was not used for longest, for a block; NULL when all are in use. */
static struct slot *claim(struct ahead *a, void *object, uint64_t number, uint64_t size)
{
    struct slot *best = NULL;
    for (unsigned i = 0; i < AHEAD_SLOTS; i++) {
        struct slot *s = &a->slots[i];
        if (s->state == STATE_FETCHING || s->readers > 0)
            continue;
        if (!best || s->state == STATE_FREE || (best->state != STATE_FREE && s->used < best->used))
            best = s;
    }
    if (!best)
        return NULL;
    uint64_t left = size - number * AHEAD_BLOCK;
    best->state = STATE_FETCHING;
    best->object = object;
    best->number = number;
    best->used = ++a->uses;
    best->len = left < AHEAD_BLOCK ? (size_t)left : AHEAD_BLOCK;
    if (!best->data)
        best->data = mem_alloc(AHEAD_BLOCK);
    return best;
}

static bool is_in_order(struct ahead_reader *r, uint64_t offset, size_t len)
{
    uint64_t end = offset + len;
    bool is_near = end + NEAR >= r->high && offset <= r->high + NEAR;
    r->run = is_near ? r->run + 1 : 0;
    if (!is_near || end > r->high)
        r->high = end;
    return r->run >= RUN_MIN;
}

/* ---- fetching ---- */

static void fetch(void *arg)
{
    struct slot *s = arg;
    struct ahead *a = s->ahead;
    enum rc rc = a->fetch(s->object, s->number * AHEAD_BLOCK, s->data, s->len, NULL);
    (void)pthread_mutex_lock(&a->lock);
    s->state = rc ? STATE_FAILED : STATE_READY;
    (void)pthread_cond_broadcast(&a->done);
    (void)pthread_mutex_unlock(&a->lock);
}

/* What a read needs, and what it has begun. */
struct plan {
    struct slot *needed[BLOCKS_MAX];
    unsigned n_needed;
    struct slot *begun[BLOCKS_MAX + DEPTH];
    unsigned n_begun;
};

static void drop(struct plan *p)
{
    for (unsigned i = 0; i < p->n_needed; i++)
        p->needed[i]->readers--;
    p->n_needed = 0;
}

/* With the lock held.  Whether the read can be served. */
static bool make_plan(struct ahead *a, void *object, uint64_t size, uint64_t first, uint64_t last,
                      struct plan *p)
{
    bool served = true;
    for (uint64_t n = first; n <= last + DEPTH && n * AHEAD_BLOCK < size; n++) {
        struct slot *s = find(a, object, n);
        if (!s) {
            s = claim(a, object, n, size);
            if (s)
                p->begun[p->n_begun++] = s;
        }
        if (n > last)
            continue;
        served = served && s;
        if (!served)
            continue;
        s->readers++;
        p->needed[p->n_needed++] = s;
    }
    if (!served)
        drop(p);
    return served;
}

/* With the lock held: wait, then copy. */
static bool serve(struct ahead *a, struct plan *p, uint64_t offset, uint8_t *data, size_t len)
{
    bool good = true;
    for (unsigned i = 0; i < p->n_needed; i++) {
        struct slot *s = p->needed[i];
        while (s->state == STATE_FETCHING)
            (void)pthread_cond_wait(&a->done, &a->lock);
        good = good && s->state == STATE_READY;
        uint64_t begin = s->number * AHEAD_BLOCK;
        uint64_t from = offset > begin ? offset : begin, end = begin + s->len;
        uint64_t to = offset + len < end ? offset + len : end;
        if (good)
            memcpy(data + (from - offset), s->data + (from - begin), to - from);
        s->used = ++a->uses;
    }
    drop(p);
    return good;
}

bool ahead_read(struct ahead *a, void *object, struct ahead_reader *r, uint64_t size,
                uint64_t offset, void *data, size_t len)
{
    struct plan p = {.n_needed = 0};
    if (len == 0 || len > AHEAD_READ_MAX)
        return false;
    (void)pthread_mutex_lock(&a->lock);
    bool served = is_in_order(r, offset, len) && make_plan(a, object, size, offset / AHEAD_BLOCK,
                                                           (offset + len - 1) / AHEAD_BLOCK, &p);
    (void)pthread_mutex_unlock(&a->lock);
    for (unsigned i = 0; i < p.n_begun; i++)
        pool_add(a->pool, &a->group, fetch, p.begun[i]);
    if (!served)
        return false;
    (void)pthread_mutex_lock(&a->lock);
    served = serve(a, &p, offset, data, len);
    (void)pthread_mutex_unlock(&a->lock);
    return served;
}

void ahead_forget(struct ahead *a, const void *object)
{
    (void)pthread_mutex_lock(&a->lock);
    for (unsigned i = 0; i < AHEAD_SLOTS; i++) {
        struct slot *s = &a->slots[i];
        if (s->state == STATE_FREE || s->object != object)
            continue;
        while (s->state == STATE_FETCHING)
            (void)pthread_cond_wait(&a->done, &a->lock);
        s->state = STATE_FREE;
    }
    (void)pthread_mutex_unlock(&a->lock);
}

#include "backend/ahead.h"

#include "base/compiler.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define NEAR ((uint64_t)4 << 20) /* threads that read together are not exactly in order */
#define RUN_MIN 6U               /* reads near each other before anything is fetched ahead */
#define DEPTH_MAX 8U             /* blocks ahead */
#define BLOCKS_MAX 5U            /* that a read of AHEAD_READ_MAX touches */
#define RECENT ((uint64_t)4 * AHEAD_SLOTS) /* uses: an object that had one is being read */

enum state { STATE_FREE, STATE_FETCHING, STATE_READY, STATE_FAILED };

struct slot {
    struct ahead *ahead;
    enum state state;
    void *object;
    uint64_t number;
    uint64_t used;    /* by the count of uses */
    unsigned readers; /* that wait for it or copy */
    bool spent;       /* it was read to its end */
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

#define DEAR (UINT64_MAX / 2)

/* How dear a slot is: free ones are for nothing, then those that were read to their end, the
 * longest ago first, then the others. */
static uint64_t worth(const struct slot *s)
{
    if (s->state == STATE_FREE)
        return 0;
    return s->used + (s->spent || s->state == STATE_FAILED ? 1 : DEAR);
}

/* A slot for a block; NULL when all are in use.
 * ahead  not at the price of one that somebody will still read */
static struct slot *claim(struct ahead *a, void *object, uint64_t number, uint64_t size, bool ahead)
{
    struct slot *best = NULL;
    for (unsigned i = 0; i < AHEAD_SLOTS; i++) {
        struct slot *s = &a->slots[i];
        if (s->state == STATE_FETCHING || s->readers > 0)
            continue;
        if (!best || worth(s) < worth(best))
            best = s;
    }
    if (!best || (ahead && worth(best) >= DEAR))
        return NULL;
    uint64_t left = size - number * AHEAD_BLOCK;
    best->state = STATE_FETCHING;
    best->object = object;
    best->number = number;
    best->used = ++a->uses;
    best->spent = false;
    best->len = left < AHEAD_BLOCK ? (size_t)left : AHEAD_BLOCK;
    if (!best->data)
        best->data = mem_alloc(AHEAD_BLOCK);
    return best;
}

/* How far ahead: packs are written by several threads, so as many are read in turn. */
static unsigned depth(const struct ahead *a)
{
    unsigned objects = 0;
    for (unsigned i = 0; i < AHEAD_SLOTS; i++) {
        bool counts = a->slots[i].state != STATE_FREE && a->slots[i].used + RECENT > a->uses;
        for (unsigned k = 0; counts && k < i; k++)
            counts = a->slots[k].state == STATE_FREE || a->slots[k].object != a->slots[i].object ||
                     a->slots[k].used + RECENT <= a->uses;
        objects += counts;
    }
    unsigned each = AHEAD_SLOTS * 3 / 4 / (objects ? objects : 1);
    return each > DEPTH_MAX ? DEPTH_MAX : each > 1 ? each - 1 : 1;
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
    struct slot *begun[BLOCKS_MAX + DEPTH_MAX];
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
    uint64_t end = last + depth(a);
    for (uint64_t n = first; n <= end && n * AHEAD_BLOCK < size; n++) {
        struct slot *s = find(a, object, n);
        if (!s) {
            s = claim(a, object, n, size, n > last);
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
        s->spent = s->spent || to == end;
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

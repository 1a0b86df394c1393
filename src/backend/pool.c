#include "backend/pool.h"

#include "base/mem.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

struct job {
    void (*fn)(void *);
    void *arg;
    struct pool_group *group;
};

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work, room, done;
    unsigned limit, threads, idle;
    unsigned first, queued; /* a ring of `limit` */
    bool ending;
    struct job *ring;
    pthread_t *ids;
};

static void *run(void *arg)
{
    struct pool *p = arg;
    (void)pthread_mutex_lock(&p->lock);
    for (;;) {
        p->idle++;
        while (p->queued == 0 && !p->ending)
            (void)pthread_cond_wait(&p->work, &p->lock);
        p->idle--;
        if (p->queued == 0)
            break;
        struct job j = p->ring[p->first];
        p->first = (p->first + 1) % p->limit;
        p->queued--;
        (void)pthread_cond_signal(&p->room);
        (void)pthread_mutex_unlock(&p->lock);
        j.fn(j.arg);
        (void)pthread_mutex_lock(&p->lock);
        j.group->running--;
        (void)pthread_cond_broadcast(&p->done);
    }
    (void)pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void set_up(struct pool *p)
{
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_cond_init(&p->work, NULL);
    (void)pthread_cond_init(&p->room, NULL);
    (void)pthread_cond_init(&p->done, NULL);
}

struct pool *pool_new(unsigned threads)
{
    struct pool *p = mem_zalloc(sizeof(*p));
    p->limit = threads;
    p->ring = mem_zalloc(threads * sizeof(*p->ring));
    p->ids = mem_zalloc(threads * sizeof(*p->ids));
    set_up(p);
    return p;
}

void pool_after_fork(struct pool *p)
{
    set_up(p); /* threads of the parent are counted as waiting in what was there */
    p->threads = p->idle = p->first = p->queued = 0;
}

void pool_freep(struct pool **pool)
{
    struct pool *p = STEAL(*pool);
    if (!p)
        return;
    (void)pthread_mutex_lock(&p->lock);
    p->ending = true;
    (void)pthread_cond_broadcast(&p->work);
    (void)pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->threads; i++)
        (void)pthread_join(p->ids[i], NULL);
    (void)pthread_mutex_destroy(&p->lock);
    (void)pthread_cond_destroy(&p->work);
    (void)pthread_cond_destroy(&p->room);
    (void)pthread_cond_destroy(&p->done);
    free(p->ring);
    free(p->ids);
    free(p);
}

/* Without a single thread the caller does the work itself.  Signals are for other threads, also
 * those that the caller lets through only now: the pool may live longer than that. */
static bool start_thread(struct pool *p)
{
    sigset_t all, mask;
    if (p->idle <= p->queued && p->threads < p->limit) {
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &mask);
        p->threads += pthread_create(&p->ids[p->threads], NULL, run, p) == 0;
        (void)pthread_sigmask(SIG_SETMASK, &mask, NULL);
    }
    return p->threads > 0;
}

void pool_add(struct pool *p, struct pool_group *g, void (*fn)(void *), void *arg)
{
    (void)pthread_mutex_lock(&p->lock);
    while (p->queued == p->limit)
        (void)pthread_cond_wait(&p->room, &p->lock);
    bool alone = !start_thread(p);
    if (!alone) {
        p->ring[(p->first + p->queued++) % p->limit] = (struct job){fn, arg, g};
        g->running++;
        (void)pthread_cond_signal(&p->work);
    }
    (void)pthread_mutex_unlock(&p->lock);
    if (alone)
        fn(arg);
}

void pool_wait(struct pool *p, struct pool_group *g)
{
    (void)pthread_mutex_lock(&p->lock);
    while (g->running > 0)
        (void)pthread_cond_wait(&p->done, &p->lock);
    (void)pthread_mutex_unlock(&p->lock);
}

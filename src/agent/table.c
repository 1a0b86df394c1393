#include "agent/table.h"

#include "agent/pick.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct entry {
    struct kube_pod pod; /* never changes */
    unsigned refs;       /* of the table, and of who has taken it */
    bool seen;           /* in the list that is going on */
    uint64_t due;
    char *done; /* bare ID of the container that nothing is to be done for any more */
};

struct table {
    pthread_mutex_t lock; /* guards everything */
    pthread_cond_t changed;
    struct entry **list;
    size_t n, cap;
    bool woken;
};

struct table *table_new(void)
{
    struct table *t = mem_zalloc(sizeof(*t));
    pthread_condattr_t attr;
    (void)pthread_mutex_init(&t->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&t->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
    return t;
}

static void unref(struct entry *e)
{
    if (--e->refs > 0)
        return;
    kube_pod_done(&e->pod);
    free(e->done);
    free(e);
}

void table_freep(struct table **table)
{
    struct table *t = STEAL(*table);
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        unref(t->list[i]);
    free(t->list);
    (void)pthread_cond_destroy(&t->changed);
    (void)pthread_mutex_destroy(&t->lock);
    free(t);
}

static pthread_mutex_t *lock(struct table *t)
{
    (void)pthread_mutex_lock(&t->lock);
    return &t->lock;
}

static void unlockp(pthread_mutex_t **held)
{
    (void)pthread_mutex_unlock(*held);
}

/* Index, or n when it is not there. */
static size_t find(const struct table *t, const char *uid)
{
    size_t i = 0;
    while (i < t->n && strcmp(t->list[i]->pod.uid, uid) != 0)
        i++;
    return i;
}

static void drop(struct table *t, size_t i)
{
    unref(t->list[i]);
    t->list[i] = t->list[--t->n];
}

void table_begin_list(struct table *t)
{
    CLEANUP(unlockp) pthread_mutex_t *held = lock(t);
    for (size_t i = 0; i < t->n; i++)
        t->list[i]->seen = false;
}

void table_end_list(struct table *t)
{
    CLEANUP(unlockp) pthread_mutex_t *held = lock(t);
    for (size_t i = t->n; i-- > 0;)
        if (!t->list[i]->seen)
            drop(t, i);
}

void table_put(struct table *t, struct kube_pod *pod)
{
    struct entry *e = mem_zalloc(sizeof(*e));
    *e = (struct entry){.pod = *pod, .refs = 1, .seen = true};
    *pod = (struct kube_pod){.name = NULL};
    CLEANUP(unlockp) pthread_mutex_t *held = lock(t);
    size_t i = find(t, e->pod.uid);
    if (i < t->n) {
        e->due = t->list[i]->due;
        e->done = STEAL(t->list[i]->done);
        unref(t->list[i]);
    } else if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 16;
        t->list = mem_realloc(t->list, t->cap * sizeof(struct entry *));
    }
    t->list[i] = e;
    t->n += i == t->n;
    (void)pthread_cond_broadcast(&t->changed);
}

void table_remove(struct table *t, const char *uid)
{
    CLEANUP(unlockp) pthread_mutex_t *held = lock(t);
    size_t i = find(t, uid);
    if (i < t->n)
        drop(t, i);
}

/* Whether there is work for it, now or later.  A pod of which no container can be chosen is work,
 * too: somebody has to say so, once. */
static bool is_work(const struct entry *e, const char *node)
{
    const struct kube_pod_container *c = NULL;
    if (!pick_pod(&e->pod, node))
        return false;
    if (pick_container(&e->pod, &c, NULL) != RC_OK)
        return !e->done;
    return c->id && c->running && (!e->done || strcmp(e->done, cri_bare_id(c->id)) != 0);
}

void table_count(struct table *t, const char *node, size_t *out_pods, size_t *out_waiting)
{
    CLEANUP(unlockp) pthread_mutex_t *held = lock(t);
    *out_pods = t->n;
    *out_waiting = 0;
    for (size_t i = 0; i < t->n; i++)
        *out_waiting += is_work(t->list[i], node);
}

/* The one that has been due for longest; *next: when one will be due, if that is before. */
static struct entry *find_due(const struct table *t, const char *node, uint64_t now, uint64_t *next)
{
    struct entry *best = NULL;
    for (size_t i = 0; i < t->n; i++) {
        struct entry *e = t->list[i];
        if (!is_work(e, node))
            continue;
        if (e->due > now)
            *next = e->due < *next ? e->due : *next;
        else if (!best || e->due < best->due)
            best = e;
    }
    return best;
}

const struct kube_pod *table_take(struct table *t, const char *node, uint64_t deadline)
{
    CLEANUP(unlockp) pthread_mutex_t *held = lock(t);
    for (;;) {
        uint64_t now = clock_now(), next = deadline;
        struct entry *e = t->woken ? NULL : find_due(t, node, now, &next);
        if (e) {
            e->refs++;
            return &e->pod;
        }
        if (t->woken || now >= deadline) {
            t->woken = false;
            return NULL;
        }
        struct timespec until = {(time_t)(next / CLOCK_S), (long)(next % CLOCK_S)};
        (void)pthread_cond_timedwait(&t->changed, &t->lock, &until);
    }
}

void table_give(struct table *t, const struct kube_pod *pod, const char *done, uint64_t due)
{
    CLEANUP(unlockp) pthread_mutex_t *held = lock(t);
    struct entry *taken = (struct entry *)(uintptr_t)pod; /* its first member */
    size_t i = find(t, pod->uid);
    if (i < t->n) {
        t->list[i]->due = due;
        if (done) {
            free(t->list[i]->done);
            t->list[i]->done = mem_strdup(done);
        }
    }
    unref(taken);
}

void table_wake(struct table *t)
{
    CLEANUP(unlockp) pthread_mutex_t *held = lock(t);
    t->woken = true;
    (void)pthread_cond_broadcast(&t->changed);
}

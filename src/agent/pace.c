#include "agent/pace.h"

#include "base/compiler.h"
#include "base/mem.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct one {
    char *key; /* NULL: free */
    unsigned left;
    uint64_t since; /* when `left` was right */
    uint64_t seen;
};

struct pace {
    pthread_mutex_t lock;
    unsigned burst;
    uint64_t period_ns;
    struct one list[PACE_KEYS];
};

struct pace *pace_new(unsigned burst, uint64_t period_ns)
{
    struct pace *p = mem_zalloc(sizeof(*p));
    p->burst = burst;
    p->period_ns = period_ns;
    (void)pthread_mutex_init(&p->lock, NULL);
    return p;
}

void pace_freep(struct pace **pace)
{
    struct pace *p = STEAL(*pace);
    for (size_t i = 0; p && i < PACE_KEYS; i++)
        free(p->list[i].key);
    if (p)
        (void)pthread_mutex_destroy(&p->lock);
    free(p);
}

static struct one *find(struct pace *p, const char *key, uint64_t now)
{
    struct one *oldest = &p->list[0];
    for (size_t i = 0; i < PACE_KEYS; i++) {
        struct one *o = &p->list[i];
        if (o->key && strcmp(o->key, key) == 0)
            return o;
        if (oldest->key && (!o->key || o->seen < oldest->seen))
            oldest = o;
    }
    free(oldest->key);
    *oldest = (struct one){.key = mem_strdup(key), .left = p->burst, .since = now};
    return oldest;
}

bool pace_allows(struct pace *p, const char *key, uint64_t now_ns)
{
    (void)pthread_mutex_lock(&p->lock);
    struct one *o = find(p, key, now_ns);
    uint64_t more = (now_ns - o->since) / p->period_ns;
    o->since += more * p->period_ns;
    o->left = more >= p->burst - o->left ? p->burst : o->left + (unsigned)more;
    o->seen = now_ns;
    bool allowed = o->left > 0;
    o->left -= allowed;
    (void)pthread_mutex_unlock(&p->lock);
    return allowed;
}

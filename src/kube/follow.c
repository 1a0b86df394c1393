/* A list, then watches, for ever. */
#include "base/clock.h"
#include "base/compiler.h"
#include "base/rand.h"
#include "kube/client.h"

#include <string.h>
#include <time.h>

#define PAUSE_MIN_NS (500 * CLOCK_MS)
#define PAUSE_MAX_NS (30 * CLOCK_S)
#define NAP_NS (100 * CLOCK_MS)

struct follow {
    struct kube *k;
    const struct kube_collection *c;
    const struct kube_follower *f;
    char version[KUBE_VERSION_MAX]; /* "" = list first */
    unsigned failures;              /* since something has worked */
};

static enum rc take_listed(void *arg, yyjson_val *object, struct err *err)
{
    const struct follow *w = arg;
    (void)err;
    w->f->take(w->f->arg, false, object);
    return RC_OK;
}

static enum rc take_change(void *arg, enum kube_change change, yyjson_val *object, struct err *err)
{
    struct follow *w = arg;
    (void)err;
    w->failures = 0;
    w->f->take(w->f->arg, change == KUBE_DELETED, object);
    return RC_OK;
}

static enum rc list(struct follow *w, struct err *err)
{
    char version[KUBE_VERSION_MAX];
    if (w->f->begin)
        w->f->begin(w->f->arg);
    enum rc rc = kube_list(w->k, w->c, take_listed, w, version, err);
    if (rc)
        return rc;
    memcpy(w->version, version, sizeof(version));
    if (w->f->end)
        w->f->end(w->f->arg);
    return RC_OK;
}

static uint64_t pause_of(const struct follow *w)
{
    uint64_t max = w->f->pause_max_ns ? w->f->pause_max_ns : PAUSE_MAX_NS, pause = PAUSE_MIN_NS;
    uint64_t chance;
    for (unsigned i = 1; i < w->failures && pause < max; i++)
        pause *= 2;
    if (pause > max)
        pause = max;
    rand_bytes(&chance, sizeof(chance));
    return pause / 2 + chance % (pause / 2 + 1);
}

static void rest(uint64_t pause, const atomic_bool *cancel)
{
    for (uint64_t end = clock_now() + pause, now; (now = clock_now()) < end;) {
        if (atomic_load(cancel))
            return;
        uint64_t nap = end - now < NAP_NS ? end - now : NAP_NS;
        struct timespec t = {0, (long)nap};
        (void)nanosleep(&t, NULL);
    }
}

/* Whether to go on without a pause. */
static bool goes_well(struct follow *w, enum rc rc, bool listed, uint64_t took_ns)
{
    if (rc == RC_CONFLICT) {
        w->version[0] = '\0';
        return w->failures++ == 0; /* not again and again */
    }
    if (!rc && took_ns >= CLOCK_S)
        w->failures = 0;
    /* A server that ends watches at once must not be asked without a pause. */
    if (!rc && (listed || took_ns >= CLOCK_S))
        return true;
    w->failures++;
    return false;
}

void kube_follow(struct kube *k, const struct kube_collection *c, const struct kube_follower *f,
                 const atomic_bool *cancel)
{
    struct follow w = {.k = k, .c = c, .f = f};
    const struct kube_watcher watcher = {.change = take_change, .arg = &w, .cancel = cancel};
    while (!atomic_load(cancel)) {
        struct err why = ERR_INIT;
        uint64_t begun = clock_now();
        bool lists = !w.version[0];
        enum rc rc = lists ? list(&w, &why) : kube_watch(k, c, &watcher, w.version, &why);
        if (atomic_load(cancel) || goes_well(&w, rc, lists, clock_now() - begun))
            continue;
        uint64_t pause = pause_of(&w);
        if (rc && f->trouble)
            f->trouble(f->arg, &why, pause);
        rest(pause, cancel);
    }
}

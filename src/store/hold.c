#include "store/hold.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/rand.h"
#include "base/sys.h"
#include "store/store_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define PREFIX "holds/"
#define WAIT_S 60 /* for a collector; with one look a second */
#define WHO_MAX 300

struct store_hold {
    struct store *store;
    bool alone;
    int lock;                      /* of a directory; otherwise -1 and: */
    char key[BACKEND_KEY_MAX + 1]; /* empty: not written */
    time_t wall, boot;             /* when it was taken */
};

static time_t boot_time(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_BOOTTIME, &t);
    return t.tv_sec;
}

/* The hold of a directory is a lock on the directory of packs. */
static enum rc lock_packs(struct store_hold *h, struct err *err)
{
    const struct store *s = h->store;
    if (sys_mkdirat(s->dir, STORE_PACKS, 0700) < 0 && errno != EEXIST)
        return err_sys(err, "make '" STORE_PACKS "' in %s", s->path);
    h->lock = sys_openat(s->dir, STORE_PACKS, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (h->lock < 0)
        return err_sys(err, "open '" STORE_PACKS "' in %s", s->path);
    int rc;
    do
        rc = flock(h->lock, h->alone ? LOCK_EX | LOCK_NB : LOCK_SH);
    while (rc < 0 && errno == EINTR);
    if (rc < 0 && errno == EWOULDBLOCK)
        return err_set(err, RC_UNAVAILABLE, "checkpoints are being made in %s", s->path);
    if (rc < 0) /* without it a collection could take away what a checkpoint is about to need */
        return err_sys(err, "lock '" STORE_PACKS "' in %s", s->path);
    return RC_OK;
}

/* ---- in an object store ---- */

struct found {
    bool alone;
    uint64_t since;
};

/* holds/alone-001764222520-0123456789abcdef */
static bool parse_key(const char *key, struct found *out)
{
    const char *name = key + sizeof(PREFIX) - 1;
    char since[16];
    bool alone = strncmp(name, "alone-", 6) == 0;
    if (!alone && strncmp(name, "shared-", 7) != 0)
        return false;
    const char *at = strchr(name, '-') + 1;
    size_t n = strcspn(at, "-");
    if (n >= sizeof(since))
        return false;
    memcpy(since, at, n);
    since[n] = '\0';
    out->alone = alone;
    return num_parse_u64(since, 0, (uint64_t)1 << 40, &out->since, NULL) == RC_OK;
}

struct search {
    const struct store_hold *own;
    char other[BACKEND_KEY_MAX + 1]; /* somebody whose hold excludes ours, or empty */
    char **ended;
    size_t n_ended;
};

static enum rc look_at(void *arg, const char *key, uint64_t size, struct err *err)
{
    struct search *s = arg;
    struct found f;
    (void)size;
    (void)err;
    if (strcmp(key, s->own->key) == 0 || !parse_key(key, &f))
        return RC_OK;
    uint64_t life = f.alone ? HOLD_ALONE_S : HOLD_SHARED_S, now = (uint64_t)time(NULL);
    if (now > f.since + life) {
        if ((s->n_ended & (s->n_ended - 1)) == 0)
            s->ended = mem_realloc(s->ended, (s->n_ended ? s->n_ended * 2 : 1) * sizeof(char *));
        s->ended[s->n_ended++] = mem_strdup(key);
    } else if (s->own->alone || f.alone) {
        (void)snprintf(s->other, sizeof(s->other), "%s", key);
    }
    return RC_OK;
}

static void search_done(struct search *s)
{
    for (size_t i = 0; i < s->n_ended; i++)
        free(s->ended[i]);
    free(s->ended);
}

static enum rc search_others(const struct store_hold *h, char other[BACKEND_KEY_MAX + 1],
                             struct err *err)
{
    struct backend *b = h->store->backend;
    CLEANUP(search_done) struct search s = {.own = h};
    enum rc rc = backend_list(b, PREFIX, look_at, &s, err);
    for (size_t i = 0; !rc && i < s.n_ended; i++)
        (void)!backend_remove(b, s.ended[i], NULL); /* only tidiness */
    memcpy(other, s.other, sizeof(s.other));
    return rc;
}

static void unwrite(struct store_hold *h)
{
    if (h->key[0])
        (void)!backend_remove(h->store->backend, h->key, NULL); /* else it ends by itself */
    h->key[0] = '\0';
}

static enum rc write_own(struct store_hold *h, struct err *err)
{
    char random[17], host[HOST_NAME_MAX + 1] = "", who[WHO_MAX];
    rand_hex(random, 16);
    h->wall = time(NULL);
    h->boot = boot_time();
    (void)gethostname(host, sizeof(host) - 1);
    (void)snprintf(who, sizeof(who), "process %d on %s", (int)getpid(), host);
    (void)snprintf(h->key, sizeof(h->key), PREFIX "%s-%012lld-%s", h->alone ? "alone" : "shared",
                   (long long)h->wall, random);
    enum rc rc = backend_put(h->store->backend, h->key, who, strlen(who), err);
    if (rc) /* perhaps it is there nevertheless */
        unwrite(h);
    return rc;
}

/* Who has written a hold: "process 4711 on node-a". */
static void ask_who(struct backend *b, const char *key, char out[WHO_MAX])
{
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    (void)snprintf(out, WHO_MAX, "somebody");
    if (backend_open(b, key, &o, NULL) != RC_OK || o->size == 0 || o->size >= WHO_MAX ||
        backend_read(o, 0, out, o->size, NULL) != RC_OK)
        return;
    out[o->size] = '\0';
    for (char *p = out; *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p > 0x7e)
            *p = '?';
}

static enum rc say_taken(const struct store_hold *h, const char *other, struct err *err)
{
    char who[WHO_MAX];
    struct found f = {0};
    (void)parse_key(other, &f);
    ask_who(h->store->backend, other, who);
    uint64_t now = (uint64_t)time(NULL), minutes = now > f.since ? (now - f.since) / 60 : 0;
    uint64_t life = f.alone ? HOLD_ALONE_S : HOLD_SHARED_S;
    return err_set(err, RC_UNAVAILABLE,
                   "%s %s %s since %ju minutes; if that is dead, wait until %ju minutes, or remove "
                   "the object '%s'",
                   who, f.alone ? "collects packs of" : "makes a checkpoint in", h->store->path,
                   (uintmax_t)minutes, (uintmax_t)life / 60, other);
}

static enum rc take(struct store_hold *h, struct err *err)
{
    char other[BACKEND_KEY_MAX + 1];
    for (unsigned i = 0;; i++) {
        enum rc rc = write_own(h, err);
        if (!rc)
            rc = search_others(h, other, err);
        if (rc || !other[0])
            return rc;
        if (h->alone || i == WAIT_S)
            return say_taken(h, other, err);
        unwrite(h);
        struct timespec second = {1, 0};
        (void)nanosleep(&second, NULL);
    }
}

enum rc store_hold_packs(struct store *s, bool alone, struct store_hold **out, struct err *err)
{
    CLEANUP(store_hold_freep) struct store_hold *h = mem_zalloc(sizeof(*h));
    *h = (struct store_hold){.store = s, .alone = alone, .lock = -1};
    enum rc rc = s->remote ? take(h, err) : lock_packs(h, err);
    if (rc)
        return rc;
    if (s->remote && !alone)
        s->hold = h;
    *out = STEAL(h);
    return RC_OK;
}

enum rc store_hold_check(const struct store_hold *h, struct err *err)
{
    time_t wall = time(NULL) - h->wall, boot = boot_time() - h->boot;
    time_t limit = (h->alone ? HOLD_ALONE_S : HOLD_SHARED_S) - HOLD_MARGIN_S;
    if (h->lock >= 0 || ((wall > boot ? wall : boot) < limit && wall > -HOLD_MARGIN_S / 2))
        return RC_OK;
    return err_set(err, RC_TIMEOUT,
                   "it has taken more than %lld hours, after which packs may be collected",
                   (long long)limit / 3600);
}

void store_hold_freep(struct store_hold **p)
{
    struct store_hold *h = STEAL(*p);
    if (!h)
        return;
    if (h->store->hold == h)
        h->store->hold = NULL;
    unwrite(h);
    fd_closep(&h->lock);
    free(h);
}

#include "pager/space.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "pager/uffd.h"

#include <errno.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MESSAGES 32U

struct space *space_new(int uffd, uint32_t pid, struct regions *regions)
{
    struct space *s = mem_zalloc(sizeof(*s));
    pthread_rwlockattr_t attr;
    *s = (struct space){.uffd = uffd, .pid = pid, .regions = *regions};
    *regions = (struct regions){.list = NULL};
    (void)pthread_rwlockattr_init(&attr);
    /* The program waits for its events to be read. */
    (void)pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    (void)pthread_rwlock_init(&s->lock, &attr);
    (void)pthread_rwlockattr_destroy(&attr);
    return s;
}

void space_free(struct space *s)
{
    if (!s)
        return;
    fd_closep(&s->uffd);
    regions_done(&s->regions);
    (void)pthread_rwlock_destroy(&s->lock);
    free(s);
}

/* ---- events ---- */

/* out_child: set if this was a fork */
static void follow(struct space *s, const struct uffd_msg *m, struct space **out_child)
{
    struct regions copy;
    switch (m->event) {
    case UFFD_EVENT_FORK:
        regions_clone(&s->regions, &copy);
        *out_child = space_new((int)m->arg.fork.ufd, 0, &copy);
        break;
    case UFFD_EVENT_REMAP:
        regions_move(&s->regions, m->arg.remap.from, m->arg.remap.to, m->arg.remap.len);
        break;
    case UFFD_EVENT_UNMAP:
        regions_unmap(&s->regions, m->arg.remove.start, m->arg.remove.end - m->arg.remove.start);
        break;
    case UFFD_EVENT_REMOVE:
        /* It is zero from now on, and still mapped: its end will be told of, too. */
        regions_filled(&s->regions, m->arg.remove.start,
                       (m->arg.remove.end - m->arg.remove.start) / REGIONS_PAGE);
        break;
    default:
        break;
    }
}

enum rc space_events(struct space *s, const struct space_hooks *hooks, struct err *err)
{
    struct uffd_msg m[MESSAGES];
    struct space *children[MESSAGES] = {NULL};
    (void)pthread_rwlock_wrlock(&s->lock);
    ssize_t n = s->uffd < 0 ? 0 : read(s->uffd, m, sizeof(m));
    int error = n < 0 ? errno : 0;
    size_t count = n > 0 ? (size_t)n / sizeof(m[0]) : 0;
    bool lost = false; /* a child has memory at a place that we have not been told of */
    for (size_t i = 0; i < count; i++) {
        lost = lost || (m[i].event == UFFD_EVENT_FORK && regions_miss_late(&s->regions));
        follow(s, &m[i], &children[i]);
    }
    (void)pthread_rwlock_unlock(&s->lock);
    for (size_t i = 0; i < count; i++)
        if (children[i])
            hooks->forked(hooks->arg, children[i]);
    /* Faults last: the kernel gives them first, also those that come from an event's outcome, such
     * as a touch of memory at the place where it was moved to. */
    for (size_t i = 0; i < count; i++)
        if (m[i].event == UFFD_EVENT_PAGEFAULT)
            hooks->fault(hooks->arg, s, m[i].arg.pagefault.address & ~(REGIONS_PAGE - 1));
    if (lost)
        return err_set(err, RC_UNSUPPORTED,
                       "process %u was forked by one thread while another one moved memory",
                       s->pid);
    if (error && error != EAGAIN && error != EINTR) {
        errno = error;
        return err_sys(err, "read events of process %u", s->pid);
    }
    return RC_OK;
}

/* ---- giving ---- */

static void leave(struct space *s)
{
    __atomic_store_n(&s->gone, true, __ATOMIC_RELAXED);
}

/* One call.  Bytes that were given, or are no longer missing, are taken off `run`. */
static enum uffd_result give_once(struct space *s, struct regions_run *run, const uint8_t *data)
{
    struct regions_run now;
    uint64_t skip = 1, len = 0;
    enum uffd_result result = UFFD_THERE;
    (void)pthread_rwlock_rdlock(&s->lock);
    if (s->uffd >= 0 && regions_find(&s->regions, run->address, run->pages, &now) &&
        now.stream == run->stream && now.first == run->first) {
        result = uffd_copy(s->uffd, run->address, data, now.pages * REGIONS_PAGE, &len);
        if (result == UFFD_NONE && len == 0 && now.pages > 1) /* over the end of a mapping? */
            result = uffd_copy(s->uffd, run->address, data, REGIONS_PAGE, &len);
        skip = len / REGIONS_PAGE + (result == UFFD_THERE);
        regions_filled(&s->regions, run->address, skip);
        if (result == UFFD_THERE)
            uffd_wake(s->uffd, run->address + len, REGIONS_PAGE);
    }
    (void)pthread_rwlock_unlock(&s->lock);
    run->address += skip * REGIONS_PAGE;
    run->first += skip;
    run->pages -= skip;
    return result == UFFD_THERE || len ? UFFD_DONE : result;
}

static void pause_briefly(void)
{
    struct timespec t = {0, 20000};
    (void)nanosleep(&t, NULL);
}

enum space_result space_give(struct space *s, const struct regions_run *run, const void *data,
                             struct err *err)
{
    struct regions_run rest = *run;
    while (rest.pages > 0) {
        const uint8_t *from = (const uint8_t *)data + (rest.address - run->address);
        switch (give_once(s, &rest, from)) {
        case UFFD_DONE:
        case UFFD_THERE:
            break;
        case UFFD_AGAIN:
            pause_briefly();
            break;
        case UFFD_NONE:
            return SPACE_EARLY;
        case UFFD_GONE:
            leave(s);
            return SPACE_OK;
        case UFFD_ERROR:
            (void)!err_sys(err, "give memory at %#jx to process %u", (uintmax_t)rest.address,
                           s->pid);
            return SPACE_FAILED;
        }
    }
    return SPACE_OK;
}

enum space_result space_give_zero(struct space *s, uint64_t address, struct err *err)
{
    for (;;) {
        struct regions_run now;
        (void)pthread_rwlock_rdlock(&s->lock);
        bool finished = s->uffd < 0;
        if (finished || regions_find(&s->regions, address, 1, &now)) {
            (void)pthread_rwlock_unlock(&s->lock);
            return finished ? SPACE_OK : SPACE_EARLY; /* something belongs here, after all */
        }
        enum uffd_result result = uffd_zero(s->uffd, address, REGIONS_PAGE);
        int error = errno;
        if (result == UFFD_THERE || result == UFFD_NONE) /* no longer there: it finds out itself */
            uffd_wake(s->uffd, address, REGIONS_PAGE);
        (void)pthread_rwlock_unlock(&s->lock);
        if (result == UFFD_GONE)
            leave(s);
        if (result == UFFD_ERROR) {
            errno = error;
            (void)!err_sys(err, "give a zero page at %#jx to process %u", (uintmax_t)address,
                           s->pid);
            return SPACE_FAILED;
        }
        if (result != UFFD_AGAIN)
            return SPACE_OK;
        pause_briefly();
    }
}

/* ---- asking ---- */

bool space_find(struct space *s, uint64_t address, uint64_t max, struct regions_run *out)
{
    (void)pthread_rwlock_rdlock(&s->lock);
    bool found = regions_find(&s->regions, address, max, out);
    (void)pthread_rwlock_unlock(&s->lock);
    return found;
}

bool space_next(struct space *s, uint64_t address, uint64_t max, struct regions_run *out)
{
    (void)pthread_rwlock_rdlock(&s->lock);
    bool found = !__atomic_load_n(&s->gone, __ATOMIC_RELAXED) &&
                 regions_next(&s->regions, address, max, out);
    (void)pthread_rwlock_unlock(&s->lock);
    return found;
}

uint64_t space_missing(struct space *s)
{
    return __atomic_load_n(&s->gone, __ATOMIC_RELAXED) ? 0 : regions_missing(&s->regions);
}

bool space_finish(struct space *s)
{
    (void)pthread_rwlock_wrlock(&s->lock);
    bool finished = space_missing(s) == 0;
    if (finished)
        fd_closep(&s->uffd);
    (void)pthread_rwlock_unlock(&s->lock);
    return finished;
}

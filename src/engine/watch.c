#include "engine/watch.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "engine/engine.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define PAUSE_NS 100000000L

struct watch {
    const struct engine *engine;
    const char *what;
    int dirfd;               /* or */
    const uint64_t *counter; /* not NULL */
    uint64_t total;
    pthread_t thread;
    pthread_mutex_t lock; /* guards stop */
    pthread_cond_t wake;
    bool stop;
};

uint64_t watch_pages_bytes(int dirfd)
{
    int fd = sys_openat(dirfd, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    uint64_t sum = 0;
    if (!dir) {
        fd_closep(&fd);
        return 0;
    }
    for (const struct dirent *e; (e = readdir(dir));) {
        struct stat st;
        if (strncmp(e->d_name, "pages-", 6) == 0 && fstatat(dirfd, e->d_name, &st, 0) == 0)
            sum += (uint64_t)st.st_size;
    }
    (void)closedir(dir);
    return sum;
}

static void *run(void *arg)
{
    struct watch *w = arg;
    (void)pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        struct timespec until;
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += PAUSE_NS;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        (void)pthread_cond_timedwait(&w->wake, &w->lock, &until);
        if (w->stop)
            break;
        uint64_t done = w->counter ? __atomic_load_n(w->counter, __ATOMIC_RELAXED)
                                   : watch_pages_bytes(w->dirfd);
        w->engine->progress(w->engine->arg, w->what, done, w->total);
    }
    (void)pthread_mutex_unlock(&w->lock);
    return NULL;
}

static struct watch *start(const struct engine *e, const char *what, int dirfd,
                           const uint64_t *counter, uint64_t total)
{
    if (!e->progress)
        return NULL;
    struct watch *w = mem_zalloc(sizeof(*w));
    *w = (struct watch){
        .engine = e, .what = what, .dirfd = dirfd, .counter = counter, .total = total};
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_cond_init(&w->wake, NULL);
    if (pthread_create(&w->thread, NULL, run, w) != 0) {
        free(w);
        return NULL;
    }
    return w;
}

struct watch *watch_start(const struct engine *e, const char *what, int dirfd, uint64_t total)
{
    return start(e, what, dirfd, NULL, total);
}

struct watch *watch_counter(const struct engine *e, const char *what, const uint64_t *counter,
                            uint64_t total)
{
    return start(e, what, -1, counter, total);
}

void watch_stop(struct watch *w)
{
    if (!w)
        return;
    (void)pthread_mutex_lock(&w->lock);
    w->stop = true;
    (void)pthread_cond_signal(&w->wake);
    (void)pthread_mutex_unlock(&w->lock);
    (void)pthread_join(w->thread, NULL);
    (void)pthread_mutex_destroy(&w->lock);
    (void)pthread_cond_destroy(&w->wake);
    free(w);
}

#include "pager/pager.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/sys.h"
#include "criu/lazy.h"
#include "pager/regions.h"
#include "pager/serve.h"
#include "pager/uffd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KILL_AGAIN_NS (50 * CLOCK_MS)
#define KILL_PATIENCE_NS (30 * CLOCK_S)
#define PROBE_ADDRESS 0x100000 /* any that may be asked for */
#define UFFD_LINK "anon_inode:[userfaultfd]"

struct pager {
    struct pager_shared *shared;
    pid_t guardian; /* our child, 0 = reaped */
    bool ended;
    int report; /* the end that we read */
};

static void pause_ns(uint64_t ns)
{
    struct timespec t = {(time_t)(ns / CLOCK_S), (long)(ns % CLOCK_S)};
    (void)nanosleep(&t, NULL);
}

/* ---- the processes' own surroundings ---- */

struct keep {
    const int *fds;
    size_t n;
};

static bool is_kept(const struct keep *k, int fd)
{
    struct stat st;
    for (size_t i = 0; i < k->n; i++)
        if (k->fds[i] == fd)
            return true;
    /* Packs, and the lock on the checkpoint's directory. */
    return fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
}

/* Call for every descriptor that we have. */
static void each_fd(void (*visit)(const void *arg, int fd), const void *arg)
{
    DIR *dir = opendir("/proc/self/fd");
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        uint64_t fd = 0;
        if (num_parse_u64(e->d_name, 0, INT32_MAX, &fd, NULL) == RC_OK && (int)fd != dirfd(dir))
            visit(arg, (int)fd);
    }
    if (dir)
        (void)closedir(dir);
}

static void close_stranger(const void *arg, int fd)
{
    if (!is_kept(arg, fd))
        (void)close(fd);
}

/* What we have got with the fork and must not hold: a pipe or a socket that somebody waits to see
 * closed, a terminal. */
static void let_go(const struct keep *k)
{
    each_fd(close_stranger, k);
    int null = open("/dev/null", O_RDWR); /* standard streams, where there was one to be closed */
    while (null >= 0 && null <= STDERR_FILENO)
        null = open("/dev/null", O_RDWR);
    if (null >= 0)
        (void)close(null);
}

static void settle(const char *name)
{
    sigset_t all;
    (void)prctl(PR_SET_NAME, name);
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    /* The kernel takes somebody else's memory first; where it may not be said, not. */
    CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, "/proc/self/oom_score_adj", O_WRONLY, 0);
    if (fd >= 0)
        (void)!write(fd, "-900", 4);
}

/* ---- the pager's process ---- */

static void *serve_thread(void *arg)
{
    const struct serve *s = arg;
    struct err err = ERR_INIT;
    enum rc rc = serve_run(s, &err);
    if (!rc)
        return NULL;
    s->shared->rc = rc;
    s->shared->err = err;
    s->o->kill(s->o->arg);
    return arg;
}

/* A thread, because the C library believes that this is still the guardian's only one: it has not
 * been told of the clone. */
static _Noreturn void be_pager(const struct serve *s)
{
    pthread_t thread;
    void *failed = (void *)(uintptr_t)s;
    settle("chrek-pager");
    page_reader_after_fork(s->o->pages);
    if (pthread_create(&thread, NULL, serve_thread, (void *)(uintptr_t)s) == 0)
        (void)pthread_join(thread, &failed);
    _exit(failed ? 1 : 0);
}

/* ---- the guardian's process ---- */

static void count_living(const void *arg, int fd)
{
    char path[40], link[sizeof(UFFD_LINK)] = "";
    uint64_t *living = *(uint64_t *const *)arg;
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, link, sizeof(link));
    if (n == (ssize_t)sizeof(UFFD_LINK) - 1 && memcmp(link, UFFD_LINK, (size_t)n) == 0)
        *living += uffd_zero(fd, PROBE_ADDRESS, REGIONS_PAGE) != UFFD_GONE;
}

/* Every userfaultfd stays open until nobody is left who could read a missing page. */
static void kill_all(const struct serve *s)
{
    uint64_t end = clock_now() + KILL_PATIENCE_NS, living = 1;
    while (living > 0 && clock_now() < end) {
        const uint64_t *const counter = &living;
        s->o->kill(s->o->arg);
        living = 0;
        each_fd(count_living, &counter);
        if (living > 0)
            pause_ns(KILL_AGAIN_NS);
    }
}

static void say_failed(const struct serve *s, int status)
{
    struct pager_shared *shared = s->shared;
    if (!shared->rc) {
        struct err err = ERR_INIT;
        shared->rc = WIFSIGNALED(status)
                         ? err_set(&err, RC_IO, "the pager was killed by signal %d (%s)",
                                   WTERMSIG(status), strsignal(WTERMSIG(status)))
                         : err_set(&err, RC_IO, "the pager could not work");
        shared->err = err;
    }
    __atomic_store_n(&shared->state, PAGER_FAILED, __ATOMIC_RELEASE);
    (void)!write(s->report, "", 1);
}

static _Noreturn void be_guardian(struct serve *s)
{
    int keep[] = {s->socket, s->report};
    int status = 0;
    (void)setsid();
    let_go(&(struct keep){keep, ARRAY_LEN(keep)});
    settle("chrek-guardian");
    s->guardian = (int)syscall(SYS_pidfd_open, getpid(), 0);
    long pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        be_pager(s);
    page_reader_forget(s->o->pages);
    while (pid > 0 && waitpid((pid_t)pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        _exit(0);
    /* All memory was in already: then only a record is lost. */
    if (__atomic_load_n(&s->shared->state, __ATOMIC_ACQUIRE) == PAGER_FILLED)
        _exit(0);
    kill_all(s);
    say_failed(s, status);
    _exit(1);
}

/* ---- the starter's side ---- */

enum rc pager_start(const struct pager_options *o, struct pager **out, struct err *err)
{
    int pipes[2];
    CLEANUP(fd_closep) int socket = -1;
    enum rc rc = cr_lazy_listen(o->work, &socket, err);
    if (rc)
        return rc;
    struct pager_shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return err_sys(err, "share memory with the pager");
    if (pipe2(pipes, O_CLOEXEC | O_NONBLOCK) < 0) {
        (void)munmap(shared, sizeof(*shared));
        return err_sys(err, "make a pipe");
    }
    struct serve s = {
        .o = o, .shared = shared, .socket = socket, .report = pipes[1], .guardian = -1};
    page_reader_before_fork(o->pages);
    pid_t guardian = fork();
    if (guardian == 0)
        be_guardian(&s);
    int error = errno;
    page_reader_forked(o->pages);
    (void)close(pipes[1]);
    if (guardian < 0) {
        (void)close(pipes[0]);
        (void)munmap(shared, sizeof(*shared));
        errno = error;
        return err_sys(err, "start the pager");
    }
    struct pager *p = mem_zalloc(sizeof(*p));
    *p = (struct pager){shared, guardian, false, pipes[0]};
    *out = p;
    return RC_OK;
}

void pager_ready(struct pager *p)
{
    __atomic_store_n(&p->shared->ready, true, __ATOMIC_RELAXED);
}

int pager_fd(const struct pager *p)
{
    return p->report;
}

struct pager_figures pager_figures(const struct pager *p)
{
    return p->shared->figures;
}

bool pager_ended(const struct pager *p)
{
    return p->ended;
}

static void reap(struct pager *p)
{
    while (p->guardian && waitpid(p->guardian, NULL, 0) < 0 && errno == EINTR)
        continue;
    p->guardian = 0;
}

enum pager_state pager_state(struct pager *p, struct err *err)
{
    char bytes[16];
    ssize_t n = 1;
    while (n > 0)
        n = read(p->report, bytes, sizeof(bytes));
    p->ended = p->ended || n == 0;
    if (p->ended)
        reap(p);
    enum pager_state state = __atomic_load_n(&p->shared->state, __ATOMIC_ACQUIRE);
    if (state == PAGER_WORKS && p->ended) { /* both were killed at once */
        (void)!err_set(&p->shared->err, RC_IO, "the pager and its guardian were killed");
        p->shared->rc = RC_IO;
        state = p->shared->state = PAGER_FAILED;
    }
    if (state == PAGER_FAILED && err)
        *err = p->shared->err;
    return state;
}

/* The state once the guardian is reaped.  Whoever else holds the pipe may be dying still: only
 * its end tells a pager that was killed from one that had no more to say. */
static enum pager_state last_state(struct pager *p, struct err *err)
{
    uint64_t deadline = clock_now() + KILL_PATIENCE_NS;
    for (;;) {
        enum pager_state state = pager_state(p, err);
        struct pollfd wait = {p->report, POLLIN, 0};
        if (state != PAGER_WORKS || p->ended || poll(&wait, 1, clock_poll_ms(deadline)) == 0)
            return state;
    }
}

enum rc pager_await(struct pager *p, uint64_t deadline, struct err *err)
{
    for (;;) {
        if (pager_state(p, err) == PAGER_FAILED)
            return p->shared->rc;
        if (__atomic_load_n(&p->shared->registered, __ATOMIC_ACQUIRE))
            return RC_OK;
        struct pollfd wait = {p->report, POLLIN, 0};
        int n = poll(&wait, 1, clock_poll_ms(deadline));
        if (n < 0 && errno != EINTR)
            return err_sys(err, "wait for the pager");
        if (n == 0)
            return err_set(err, RC_TIMEOUT, "the pager was not ready in time");
    }
}

enum pager_state pager_end(struct pager **p, struct err *err)
{
    struct pager *x = STEAL(*p);
    __atomic_store_n(&x->shared->over, true, __ATOMIC_RELAXED);
    reap(x);
    enum pager_state state = last_state(x, err);
    (void)close(x->report);
    (void)munmap(x->shared, sizeof(*x->shared));
    free(x);
    return state;
}

void pager_freep(struct pager **p)
{
    if (*p)
        (void)pager_end(p, NULL);
}

#include "base/clock.h"
#include "base/compiler.h"
#include "base/sys.h"
#include "container/halt.h"
#include "harness/test.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SOON (clock_now() + 10 * CLOCK_S)

struct child {
    pid_t pid;
    int from; /* what it writes */
};

static struct child start(void (*live)(int to))
{
    int p[2];
    CHECK(pipe(p) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close(p[0]);
        live(p[1]);
        _exit(0);
    }
    (void)close(p[1]);
    return (struct child){pid, p[0]};
}

static int end(struct child *c, int sig)
{
    int status = 0;
    if (sig)
        (void)kill(c->pid, sig);
    CHECK(waitpid(c->pid, &status, 0) == c->pid);
    fd_closep(&c->from);
    return status;
}

static uint64_t next(const struct child *c)
{
    uint64_t n = 0;
    CHECK(read(c->from, &n, sizeof(n)) == sizeof(n));
    return n;
}

static bool silent(const struct child *c, int ms)
{
    struct pollfd p = {.fd = c->from, .events = POLLIN};
    uint64_t n = 0;
    while (poll(&p, 1, 0) > 0 && read(c->from, &n, sizeof(n)) > 0) /* what was written before */
        continue;
    return poll(&p, 1, ms) == 0;
}

static void *count(void *arg)
{
    int to = *(int *)arg;
    for (uint64_t i = 1;; i++) {
        (void)!write(to, &i, sizeof(i));
        (void)usleep(1000);
    }
    return NULL;
}

/* Threads of two processes. */
static void count_much(int to)
{
    pthread_t t;
    (void)fork();
    for (int i = 0; i < 3; i++)
        (void)pthread_create(&t, NULL, count, &to);
    (void)count(&to);
}

TEST(a_tree_stands_still_and_goes_on)
{
    struct err err = ERR_INIT;
    struct child c = start(count_much);
    CLEANUP(halt_endp) struct halt *h = NULL;
    const pid_t *pids = NULL;
    for (int i = 0; i < 20; i++)
        (void)next(&c);
    CHECK_OK(halt_tree(c.pid, SOON, &h, &err));
    CHECK_INT(halt_processes(h, &pids), 2);
    CHECK_INT(pids[0], c.pid);
    CHECK(silent(&c, 50));
    halt_endp(&h);
    for (int i = 0; i < 20; i++)
        (void)next(&c);
    CHECK(WIFSIGNALED(end(&c, SIGKILL)));
}

/* Sleeps, and says how long that took. */
static void sleep_once(int to)
{
    struct timespec t = {0, 300000000};
    uint64_t ready = 1, begun = clock_now();
    (void)!write(to, &ready, sizeof(ready));
    if (nanosleep(&t, NULL) != 0)
        return;
    begun = clock_now() - begun;
    (void)!write(to, &begun, sizeof(begun));
}

TEST(a_call_inside_leaves_the_process_and_its_own_call_as_they_were)
{
    struct err err = ERR_INIT;
    struct child c = start(sleep_once);
    CLEANUP(halt_endp) struct halt *h = NULL;
    uint64_t args[6] = {0};
    long result = 0;
    (void)next(&c);
    CHECK_OK(halt_tree(c.pid, SOON, &h, &err));
    enum rc rc = halt_call(h, c.pid, SYS_getpid, args, &result, &err);
    if (rc == RC_UNSUPPORTED)
        test_skip("machine: no x86-64");
    CHECK_OK(rc);
    CHECK_INT(result, c.pid);
    args[0] = 9999;
    CHECK_OK(halt_call(h, c.pid, SYS_close, args, &result, &err));
    CHECK_INT(result, -EBADF);
    halt_endp(&h);
    CHECK(next(&c) >= 300000000);
    CHECK_INT(end(&c, 0), 0);
}

static volatile sig_atomic_t signals;

static void take(int sig)
{
    (void)sig;
    signals++;
}

/* Counts signals; tells the number when asked by another one. */
static void count_signals(int to)
{
    uint64_t n = 0;
    struct sigaction act = {.sa_handler = take};
    sigset_t both, others;
    (void)sigemptyset(&both);
    (void)sigaddset(&both, SIGUSR1);
    (void)sigaddset(&both, SIGUSR2);
    (void)sigaction(SIGUSR1, &act, NULL);
    (void)sigaction(SIGUSR2, &act, NULL);
    (void)sigprocmask(SIG_BLOCK, &both, &others); /* taken while it waits, and never before */
    for (;;) {
        (void)!write(to, &n, sizeof(n));
        (void)sigsuspend(&others);
        n = (uint64_t)signals;
    }
}

TEST(signals_that_come_meanwhile_are_delivered_afterwards)
{
    struct err err = ERR_INIT;
    struct child c = start(count_signals);
    CLEANUP(halt_endp) struct halt *h = NULL;
    uint64_t args[6] = {0};
    long result = 0;
    CHECK_INT(next(&c), 0);
    CHECK_OK(halt_tree(c.pid, SOON, &h, &err));
    CHECK(kill(c.pid, SIGUSR1) == 0);
    enum rc rc = halt_call(h, c.pid, SYS_getpid, args, &result, &err);
    CHECK(rc == RC_OK || rc == RC_UNSUPPORTED);
    CHECK(kill(c.pid, SIGUSR2) == 0);
    halt_endp(&h);
    while (next(&c) < 2)
        continue;
    CHECK(WIFSIGNALED(end(&c, SIGKILL)));
}

static void stop_oneself(int to)
{
    uint64_t n = 7;
    (void)raise(SIGSTOP);
    (void)!write(to, &n, sizeof(n));
}

TEST(a_process_that_was_stopped_stays_stopped)
{
    struct err err = ERR_INIT;
    struct child c = start(stop_oneself);
    CLEANUP(halt_endp) struct halt *h = NULL;
    uint64_t args[6] = {0};
    long result = 0;
    int status = 0;
    CHECK(waitpid(c.pid, &status, WUNTRACED) == c.pid && WIFSTOPPED(status));
    CHECK_OK(halt_tree(c.pid, SOON, &h, &err));
    enum rc rc = halt_call(h, c.pid, SYS_getpid, args, &result, &err);
    CHECK(rc == RC_UNSUPPORTED || (rc == RC_OK && result == c.pid));
    halt_endp(&h);
    CHECK(silent(&c, 100));
    CHECK(kill(c.pid, SIGCONT) == 0);
    CHECK_INT(next(&c), 7);
    CHECK_INT(end(&c, 0), 0);
}

TEST(a_process_that_is_not_there_is_said)
{
    struct err err = ERR_INIT;
    struct halt *h = NULL;
    CHECK_RC(halt_tree(0x3ffffff, SOON, &h, &err), RC_NOT_FOUND);
}

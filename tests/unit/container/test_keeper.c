#include "base/clock.h"
#include "base/sys.h"
#include "container/keeper.h"
#include "container/proc_tree.h"
#include "harness/test.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* A process that is stopped, and says so when it runs.  *from: what it would say. */
static pid_t start(int *from)
{
    int p[2], status = 0;
    CHECK(pipe(p) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)raise(SIGSTOP);
        (void)!write(p[1], "!", 1);
        (void)pause();
    }
    (void)close(p[1]);
    *from = p[0];
    CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
    return pid;
}

/* It ends, and has said nothing. */
static void check_silent_end(int from)
{
    char c;
    struct pollfd p = {.fd = from, .events = POLLIN};
    CHECK(poll(&p, 1, 20000) == 1);
    CHECK(read(from, &c, 1) == 0);
    (void)close(from);
}

TEST(one_that_was_taken_does_not_run_and_ends_when_it_shall)
{
    struct err err = ERR_INIT;
    struct proc_facts f;
    int from = -1;
    pid_t pid = start(&from);
    CHECK_OK(keeper_take(pid, &err));
    CHECK_OK(proc_facts_read(pid, &f, &err));
    CHECK_INT(f.tracer, getpid());
    CHECK(kill(pid, SIGCONT) == 0); /* or to its process group */
    struct pollfd p = {.fd = from, .events = POLLIN};
    CHECK(poll(&p, 1, 50) == 0);
    keeper_end(pid);
    check_silent_end(from);
    (void)waitpid(pid, NULL, __WALL);
    CHECK_RC(keeper_take(pid, &err), RC_NOT_FOUND);
}

static void *take_and_leave(void *arg)
{
    struct err err = ERR_INIT;
    CHECK_OK(keeper_take(*(pid_t *)arg, &err));
    return NULL;
}

TEST(it_ends_with_the_thread_that_took_it)
{
    int from = -1;
    pthread_t thread;
    pid_t pid = start(&from);
    CHECK(pthread_create(&thread, NULL, take_and_leave, &pid) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    check_silent_end(from);
    (void)waitpid(pid, NULL, __WALL);
}

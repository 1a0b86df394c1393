#include "backend/pool.h"
#include "base/compiler.h"
#include "harness/httpd.h"
#include "harness/test.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

struct job {
    atomic_uint *running, *most, *done;
};

static void work(void *arg)
{
    const struct job *j = arg;
    unsigned now = atomic_fetch_add(j->running, 1) + 1;
    if (now > atomic_load(j->most))
        atomic_store(j->most, now);
    httpd_pause(5);
    atomic_fetch_sub(j->running, 1);
    atomic_fetch_add(j->done, 1);
}

TEST(jobs_run_at_the_same_time_but_no_more_than_there_are_threads)
{
    atomic_uint running = 0, most = 0, done = 0;
    struct job j = {&running, &most, &done};
    struct pool_group one = {0}, two = {0}, none = {0};
    CLEANUP(pool_freep) struct pool *p = pool_new(4);
    pool_wait(p, &none);
    for (int i = 0; i < 20; i++) {
        pool_add(p, &one, work, &j);
        pool_add(p, &two, work, &j);
    }
    pool_wait(p, &one);
    pool_wait(p, &two);
    CHECK_INT(done, 40);
    CHECK(most > 1 && most <= 4);
    pool_add(p, &one, work, &j); /* again */
    pool_wait(p, &one);
    CHECK_INT(done, 41);
}

static void look_at_mask(void *arg)
{
    sigset_t *mask = arg;
    (void)pthread_sigmask(SIG_SETMASK, NULL, mask);
}

TEST(signals_are_not_for_its_threads)
{
    struct pool_group g = {0};
    CLEANUP(pool_freep) struct pool *p = pool_new(1);
    sigset_t theirs, before, after;
    (void)sigemptyset(&theirs);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &before);
    CHECK(!sigismember(&before, SIGTERM));
    pool_add(p, &g, look_at_mask, &theirs);
    pool_wait(p, &g);
    CHECK(sigismember(&theirs, SIGTERM) == 1 && sigismember(&theirs, SIGINT) == 1);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &after);
    CHECK(!sigismember(&after, SIGTERM));
}

TEST(a_pool_without_work_has_no_threads_and_can_be_ended)
{
    struct pool *p = pool_new(3);
    pool_freep(&p);
    CHECK(!p);
    pool_freep(&p);
}

TEST(a_child_has_threads_of_its_own)
{
    if (TEST_EXTRA_THREAD)
        test_skip("machine: the thread sanitizer allows no threads after a fork");
    atomic_uint running = 0, most = 0, done = 0;
    struct job j = {&running, &most, &done};
    struct pool_group group = {0};
    CLEANUP(pool_freep) struct pool *p = pool_new(2);
    for (int i = 0; i < 6; i++)
        pool_add(p, &group, work, &j);
    pool_wait(p, &group);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        (void)alarm(20);
        pool_after_fork(p);
        for (int i = 0; i < 6; i++)
            pool_add(p, &group, work, &j);
        pool_wait(p, &group);
        pool_freep(&p);
        _exit(done == 12 ? 0 : 1);
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    pool_add(p, &group, work, &j); /* ours still work */
    pool_wait(p, &group);
    CHECK_INT(done, 7);
}

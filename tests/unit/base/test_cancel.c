#include "base/cancel.h"
#include "harness/test.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

/* Run in a child, whose signals are its own; its wait status. */
static int in_child(void (*run)(void))
{
    int status = 0;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        run();
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static void open_one(struct cancel *c)
{
    struct err err = ERR_INIT;
    CHECK_OK(cancel_init(c, &err));
}

TEST(the_word_is_seen_by_who_polls_and_who_asks_also_in_a_child)
{
    CLEANUP(cancel_done) struct cancel c = CANCEL_INIT;
    open_one(&c);
    struct pollfd word = {c.fd, POLLIN, 0};
    CHECK(!cancel_asked(&c) && !cancel_asked(NULL) && poll(&word, 1, 0) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        cancel_ask(&c);
        _exit(0);
    }
    CHECK(waitpid(pid, NULL, 0) == pid);
    CHECK(cancel_asked(&c) && poll(&word, 1, 0) == 1 && c.signal == 0);
    struct err err = ERR_INIT;
    CHECK_RC(cancel_error(&c, &err), RC_CANCELLED);
    CHECK_STR(err.msg, "interrupted");
}

static void be_interrupted(void)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
    for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
        struct err err = ERR_INIT;
        struct cancel c;
        sigset_t set;
        open_one(&c);
        (void)sigemptyset(&set);
        (void)sigaddset(&set, signals[i]);
        (void)sigprocmask(SIG_BLOCK, &set, NULL);
        (void)raise(signals[i]); /* waits until it is armed */
        CHECK(!cancel_asked(&c));
        cancel_arm(&c, 0);
        CHECK(cancel_asked(&c) && c.signal == signals[i]);
        (void)raise(signals[i]); /* and once more */
        cancel_disarm(&c);
        (void)sigprocmask(SIG_BLOCK, NULL, &set);
        CHECK(sigismember(&set, signals[i]));
        CHECK_RC(cancel_error(&c, &err), RC_CANCELLED);
        CHECK(strstr(err.msg, "interrupted by SIG"));
        cancel_done(&c);
    }
}

TEST(a_signal_gives_the_word_also_one_that_was_blocked)
{
    CHECK_INT(in_child(be_interrupted), 0);
}

static void be_ended_afterwards(void)
{
    struct cancel c;
    open_one(&c);
    cancel_arm(&c, 0);
    cancel_disarm(&c);
    (void)raise(SIGTERM);
}

TEST(disarmed_a_signal_ends_us_as_ever)
{
    int status = in_child(be_ended_afterwards);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

static void leave_others_alone(void)
{
    struct cancel c;
    open_one(&c);
    (void)signal(SIGHUP, SIG_IGN); /* nohup */
    cancel_arm(&c, 0);
    (void)raise(SIGHUP);
    CHECK(!cancel_asked(&c));
    (void)signal(SIGTERM, SIG_IGN); /* somebody has decided otherwise meanwhile */
    cancel_disarm(&c);
    (void)raise(SIGTERM);
    cancel_done(&c);
}

TEST(what_others_ignore_stays_ignored)
{
    CHECK_INT(in_child(leave_others_alone), 0);
}

static void insist(void)
{
    struct cancel c;
    open_one(&c);
    cancel_arm(&c, 100);
    (void)raise(SIGINT);
    (void)raise(SIGTERM);
}

static void wait_for_ever(void)
{
    struct cancel c;
    open_one(&c);
    cancel_arm(&c, 1);
    (void)raise(SIGINT);
    for (;;)
        (void)pause();
}

static void hang_later(void)
{
    struct cancel c;
    open_one(&c);
    cancel_arm(&c, 0);
    (void)raise(SIGTERM);
    (void)raise(SIGTERM);
    cancel_limit(&c, 1);
    for (;;)
        (void)pause();
}

static void hang_no_more(void)
{
    struct cancel c;
    open_one(&c);
    cancel_arm(&c, 0);
    cancel_limit(&c, 1);
    (void)raise(SIGTERM);
    cancel_limit(&c, 0);
    (void)raise(SIGTERM);
    CHECK(alarm(0) == 0);
    cancel_disarm(&c);
}

TEST(a_limit_may_come_and_go_while_signals_are_armed)
{
    int status = in_child(hang_later);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGTERM);
    CHECK_INT(in_child(hang_no_more), 0);
}

TEST(with_a_limit_a_second_signal_or_its_end_ends_us)
{
    int status = in_child(insist);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGINT);
    status = in_child(wait_for_ever);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGINT);
}

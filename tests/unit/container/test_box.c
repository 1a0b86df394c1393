#include "base/sys.h"
#include "container/box.h"
#include "harness/test.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct box *make(int out)
{
    struct err err = ERR_INIT;
    struct box_config config = {.stdio = {-1, out, out}};
    struct box *b = NULL;
    (void)sigemptyset(&config.mask);
    enum rc rc = box_create(&config, &b, &err);
    if (rc == RC_DENIED)
        test_skip("machine: no right to make namespaces");
    CHECK_OK(rc);
    return b;
}

static enum rc start(struct box *b, const char *script, pid_t *pid, struct err *err)
{
    char sh[] = "/bin/sh", dash_c[] = "-c", path[] = "PATH=/usr/bin:/bin", text[1024];
    (void)snprintf(text, sizeof(text), "%s", script);
    char *argv[] = {sh, dash_c, text, NULL}, *envp[] = {path, NULL};
    int master = 77;
    enum rc rc = box_start(b, argv, envp, pid, &master, err);
    CHECK(rc != RC_OK || master == -1);
    return rc;
}

TEST(a_command_runs_apart_and_its_status_comes_back)
{
    struct err err = ERR_INIT;
    int out[2], status = 0;
    pid_t pid = 0;
    char text[512] = "";
    CHECK(pipe2(out, O_CLOEXEC) == 0);
    CLEANUP(fd_closep) int in = out[0];
    CLEANUP(box_freep) struct box *b = make(out[1]);
    CHECK_OK(start(b, "echo pid $$ parent $PPID; ls /dev/shm; ls -d /run/chrek/app; exit 7", &pid,
                   &err));
    (void)close(out[1]);
    CHECK_OK(box_wait(b, &status, &err));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    box_reap(b);
    CHECK(read(in, text, sizeof(text) - 1) > 0);
    char want[128];
    (void)snprintf(want, sizeof(want), "pid %d parent 1\n/run/chrek/app\n", (int)pid);
    CHECK_STR(text, want);
    CHECK(pid > BOX_FIRST_PID);
}

TEST(what_cannot_be_executed_is_an_error_with_its_reason)
{
    struct err err = ERR_INIT;
    CLEANUP(box_freep) struct box *b = make(-1);
    char none[] = "no-such-program", *argv[] = {none, NULL}, *envp[] = {NULL};
    pid_t pid = 0;
    int master = 0;
    CHECK_RC(box_start(b, argv, envp, &pid, &master, &err), RC_NOT_FOUND);
    CHECK_STR(err.msg, "start 'no-such-program': No such file or directory");
    CHECK_OK(start(b, "exit 0", &pid, &err)); /* the box is as good as before */
}

TEST(signals_reach_the_command_and_its_death_is_told)
{
    struct err err = ERR_INIT;
    CLEANUP(box_freep) struct box *b = make(-1);
    pid_t pid = 0;
    int status = 0;
    CHECK_OK(start(b, "sleep 100", &pid, &err));
    CHECK_OK(box_signal(b, SIGTERM, &err));
    CHECK_OK(box_wait(b, &status, &err));
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

TEST(a_signal_to_the_group_reaches_what_the_command_waits_for)
{
    struct err err = ERR_INIT;
    int up[2];
    char c;
    CHECK(pipe2(up, O_CLOEXEC) == 0);
    CLEANUP(fd_closep) int in = up[0];
    CLEANUP(box_freep) struct box *b = make(up[1]);
    pid_t pid = 0;
    int status = 0;
    /* With a trap in the inner shell, too: without one dash may lose the signal as it executes. */
    CHECK_OK(start(b,
                   "trap 'exit 9' INT; "
                   "sh -c 'trap \"exit 1\" INT; echo; while :; do sleep 0.05; done'; exit 1",
                   &pid, &err));
    (void)close(up[1]);
    CHECK(read(in, &c, 1) == 1);
    CHECK_OK(box_signal_group(b, SIGINT, &err));
    CHECK_OK(box_wait(b, &status, &err));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 9);
}

TEST(the_end_of_the_box_is_the_end_of_everything_in_it)
{
    struct err err = ERR_INIT;
    int out[2];
    pid_t pid = 0;
    char c;
    CHECK(pipe2(out, O_CLOEXEC) == 0);
    CLEANUP(fd_closep) int in = out[0];
    struct box *b = make(out[1]);
    CHECK_OK(start(b, "trap '' TERM; (setsid sleep 100 &) ; (sleep 100 &); sleep 100", &pid, &err));
    (void)close(out[1]);
    box_freep(&b);
    CHECK(read(in, &c, 1) == 0); /* nobody holds the pipe any more */
}

TEST(a_maker_that_dies_takes_its_box_along)
{
    int out[2];
    char c;
    CHECK(pipe2(out, O_CLOEXEC) == 0);
    CLEANUP(fd_closep) int in = out[0];
    pid_t maker = fork();
    if (maker == 0) {
        struct err err = ERR_INIT;
        pid_t pid = 0;
        struct box *b = make(out[1]);
        CHECK_OK(start(b, "sleep 100", &pid, &err));
        (void)raise(SIGKILL);
    }
    (void)close(out[1]);
    CHECK(waitpid(maker, NULL, 0) == maker);
    CHECK(read(in, &c, 1) == 0);
}

TEST(a_tree_that_was_adopted_late_is_not_missed)
{
    struct err err = ERR_INIT;
    CLEANUP(box_freep) struct box *b = make(-1);
    int status = 0;
    CHECK_OK(box_adopt(b, 12345, &err)); /* never seen: then the box just waits */
    CHECK(kill(box_init_pid(b), SIGKILL) == 0);
    CHECK_RC(box_wait(b, &status, &err), RC_CANCELLED);
}

/* Puts a process into the box and never reaps it, as PID 1 of many a container. */
static _Noreturn void careless(const struct box *b, int told)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/ns/pid", (int)box_init_pid(b));
    int ns = open(path, O_RDONLY | O_CLOEXEC);
    if (ns < 0 || setns(ns, CLONE_NEWPID) < 0)
        _exit(1);
    pid_t guest = fork();
    if (guest == 0)
        for (;;)
            (void)pause();
    (void)!write(told, "x", 1);
    for (;;)
        (void)pause();
}

TEST(a_guest_that_nobody_reaps_does_not_hold_the_box)
{
    CLEANUP(box_freep) struct box *b = make(-1);
    int told[2];
    CHECK(pipe2(told, O_CLOEXEC) == 0);
    pid_t host = fork();
    if (host == 0)
        careless(b, told[1]);
    (void)close(told[1]);
    char c;
    CHECK(read(told[0], &c, 1) == 1);
    (void)close(told[0]);
    box_reap(b); /* must come back */
    CHECK(kill(host, SIGKILL) == 0 && waitpid(host, NULL, 0) == host);
}

TEST(directories_of_the_box_can_be_opened)
{
    struct err err = ERR_INIT;
    CLEANUP(box_freep) struct box *b = make(-1);
    CLEANUP(fd_closep) int app = -1;
    struct stat inside, outside;
    CHECK_OK(box_open_dir(b, BOX_APP_DIR, &app, &err));
    CHECK(fstat(app, &inside) == 0 &&
          (stat(BOX_APP_DIR, &outside) < 0 || inside.st_dev != outside.st_dev));
    int none = -5;
    CHECK_RC(box_open_dir(b, "/no/such", &none, &err), RC_NOT_FOUND);
    CHECK(none == -5);
}

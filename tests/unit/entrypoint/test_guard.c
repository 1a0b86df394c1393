#include "base/compiler.h"
#include "base/sys.h"
#include "entrypoint/guard.h"
#include "harness/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* A guard in a process of its own, over a root that runs `act` once `ready` can be written to. */
static pid_t guarded(int ready, int input, int master, void (*act)(int ready))
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid)
        return pid;
    guard_begin();
    pid_t root = fork();
    if (root == 0) {
        guard_cancel();
        act(ready);
        _exit(99);
    }
    if (root < 0 || (input >= 0 && dup2(input, STDIN_FILENO) < 0))
        _exit(98);
    _exit(guard(root, master));
}

static int code_of(pid_t pid)
{
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void say_ready(int ready)
{
    (void)!write(ready, "x", 1);
}

static void await_ready(int fd)
{
    char byte = 0;
    CHECK(read(fd, &byte, 1) == 1);
}

static void leave_an_orphan_and_end(int ready)
{
    (void)ready;
    if (fork() == 0)
        _exit(5); /* whose status is nobody's */
    _exit(23);
}

static void end_by_a_signal(int ready)
{
    (void)ready;
    (void)raise(SIGKILL);
}

TEST(it_ends_as_the_root_ends)
{
    CHECK_INT(code_of(guarded(-1, -1, -1, leave_an_orphan_and_end)), 23);
    CHECK_INT(code_of(guarded(-1, -1, -1, end_by_a_signal)), 128 + SIGKILL);
}

static volatile sig_atomic_t got;

static void on_signal(int sig)
{
    got = sig;
}

/* Ends with the number of the first signal. */
static void end_with_what_comes(int ready)
{
    sigset_t all, none;
    (void)sigfillset(&all);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    for (int sig = 1; sig <= SIGRTMAX; sig++)
        (void)signal(sig, on_signal);
    (void)signal(SIGCHLD, SIG_DFL);
    say_ready(ready);
    (void)sigsuspend(&none);
    _exit(got);
}

TEST(every_signal_is_passed_on)
{
    const int list[] = {SIGTERM, SIGINT,  SIGQUIT, SIGHUP,   SIGUSR1,  SIGUSR2, SIGTSTP,
                        SIGCONT, SIGALRM, SIGPOLL, SIGWINCH, SIGRTMIN, SIGRTMAX};
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        int p[2];
        CHECK(pipe2(p, O_CLOEXEC) == 0);
        pid_t pid = guarded(p[1], -1, -1, end_with_what_comes);
        await_ready(p[0]);
        CHECK(kill(pid, list[i]) == 0);
        CHECK_INT(code_of(pid), list[i]);
        CHECK(close(p[0]) == 0 && close(p[1]) == 0);
    }
}

static void read_nothing(int ready)
{
    say_ready(ready);
    for (;;)
        (void)pause();
}

TEST(a_terminal_that_takes_nothing_keeps_no_signal_waiting)
{
    int input[2], p[2], master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    static char much[65536];
    struct termios raw;
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    CLEANUP(fd_closep) int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(slave >= 0 && tcgetattr(slave, &raw) == 0);
    cfmakeraw(&raw);
    CHECK(tcsetattr(slave, TCSANOW, &raw) == 0);
    CHECK(pipe2(input, O_CLOEXEC | O_NONBLOCK) == 0 && pipe2(p, O_CLOEXEC) == 0);
    CHECK(fcntl(input[0], F_SETFL, 0) == 0);
    pid_t pid = guarded(p[1], input[0], master, read_nothing);
    await_ready(p[0]);
    /* until nobody takes any more: then the terminal is full, or will be in a moment */
    for (int full = 0; full < 20; full++) {
        while (write(input[1], much, sizeof(much)) > 0)
            full = 0;
        (void)usleep(5000);
    }
    CHECK(kill(pid, SIGTERM) == 0);
    CHECK_INT(code_of(pid), 128 + SIGTERM);
    const int all[] = {input[0], input[1], p[0], p[1], master};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        CHECK(close(all[i]) == 0);
}

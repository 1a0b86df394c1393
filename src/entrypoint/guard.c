#include "entrypoint/guard.h"

#include "base/compiler.h"
#include "base/sys.h"
#include "entrypoint/log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static sigset_t before;

void guard_begin(void)
{
    sigset_t set;
    (void)sigfillset(&set);
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        (void)sigdelset(&set, own[i]);
    (void)sigprocmask(SIG_SETMASK, &set, &before);
}

void guard_cancel(void)
{
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
}

void guard_pause(unsigned seconds)
{
    static const int ends[] = {SIGTERM, SIGINT, SIGQUIT};
    struct timespec pause = {(time_t)seconds, 0};
    sigset_t set;
    (void)sigemptyset(&set);
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
        (void)sigaddset(&set, ends[i]);
    int sig = sigtimedwait(&set, NULL, &pause);
    if (sig <= 0)
        return;
    log_info("Ended by a signal before anything was started", "signal", strsignal(sig), NULL);
    _exit(128 + sig);
}

static int code_of(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* One step of copying; false when there is no more to come. */
static bool copy(int from, int to)
{
    char chunk[16384];
    ssize_t n = read(from, chunk, sizeof(chunk));
    if (n < 0)
        return errno == EINTR || errno == EAGAIN;
    return n > 0 && sys_write_all(to, chunk, (size_t)n, NULL) == RC_OK;
}

/* The last of the output: the terminal has hung up when all of it has been read. */
static void drain(int master)
{
    struct pollfd more = {master, POLLIN, 0};
    while (master >= 0 && poll(&more, 1, 0) > 0 && copy(master, STDOUT_FILENO))
        continue;
}

static void pass_on(int signals, pid_t root)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        int sig = (int)info.ssi_signo;
        if (sig != SIGCHLD && sig != SIGPIPE)
            (void)kill(root, sig);
    }
}

int guard(pid_t root, int master)
{
    sigset_t set;
    (void)sigprocmask(SIG_SETMASK, NULL, &set);
    CLEANUP(fd_closep) int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    struct pollfd wait[] = {
        {signals, POLLIN, 0}, {master, POLLIN, 0}, {master < 0 ? -1 : STDIN_FILENO, POLLIN, 0}};
    for (;;) {
        int status = 0;
        for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
            if (pid == root) {
                drain(wait[1].fd);
                return code_of(status);
            }
        if (poll(wait, 3, -1) < 0)
            continue;
        pass_on(signals, root);
        if (wait[1].revents && !copy(master, STDOUT_FILENO))
            wait[1].fd = wait[2].fd = -1;
        if (wait[2].fd >= 0 && wait[2].revents && !copy(STDIN_FILENO, master))
            wait[2].fd = -1;
    }
}

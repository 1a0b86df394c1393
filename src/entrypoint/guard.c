#include "entrypoint/guard.h"

#include "base/compiler.h"
#include "base/sys.h"
#include "entrypoint/log.h"

#include <errno.h>
#include <fcntl.h>
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

/* What somebody types, on its way to a terminal that may take its time: nobody else's signals or
 * output wait for that. */
struct typed {
    size_t at, len;
    char text[4096];
};

/* False when there is no more to come. */
static bool take_typed(struct typed *t)
{
    ssize_t n = read(STDIN_FILENO, t->text, sizeof(t->text));
    t->at = 0;
    t->len = n > 0 ? (size_t)n : 0;
    return n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
}

/* False when nobody takes it any more. */
static bool give_typed(struct typed *t, int master)
{
    ssize_t n = write(master, t->text + t->at, t->len - t->at);
    if (n < 0)
        return errno == EINTR || errno == EAGAIN;
    t->at += (size_t)n;
    return true;
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

enum { SIGNALS, MASTER, STDIN, WAITED };

/* One step between the terminal and our standard streams. */
static void exchange(struct pollfd *wait, int master, struct typed *typed)
{
    bool lives = true;
    if (wait[MASTER].revents & POLLOUT)
        lives = give_typed(typed, master);
    if (lives && wait[MASTER].revents & ~POLLOUT)
        lives = copy(master, STDOUT_FILENO);
    if (wait[STDIN].revents && !take_typed(typed))
        wait[STDIN].fd = -1;
    if (!lives)
        wait[MASTER].fd = wait[STDIN].fd = -1;
    wait[MASTER].events = typed->at < typed->len ? POLLIN | POLLOUT : POLLIN;
    wait[STDIN].events = typed->at < typed->len ? 0 : POLLIN;
}

int guard(pid_t root, int master)
{
    sigset_t set;
    struct typed typed = {.len = 0};
    (void)sigprocmask(SIG_SETMASK, NULL, &set);
    CLEANUP(fd_closep) int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    struct pollfd wait[WAITED] = {[SIGNALS] = {signals, POLLIN, 0},
                                  [MASTER] = {master, POLLIN, 0},
                                  [STDIN] = {master < 0 ? -1 : STDIN_FILENO, POLLIN, 0}};
    if (master >= 0)
        (void)fcntl(master, F_SETFL, O_NONBLOCK);
    for (;;) {
        int status = 0;
        for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
            if (pid == root) {
                drain(wait[MASTER].fd);
                return code_of(status);
            }
        if (poll(wait, WAITED, -1) < 0)
            continue;
        pass_on(signals, root);
        exchange(wait, master, &typed);
    }
}

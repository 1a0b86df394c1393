#include "entrypoint/guard.h"

#include "entrypoint/log.h"

#include <signal.h>
#include <string.h>
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

int guard(pid_t root)
{
    sigset_t set;
    (void)sigprocmask(SIG_SETMASK, NULL, &set);
    for (;;) {
        int status = 0;
        for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
            if (pid == root)
                return code_of(status);
        int sig = sigwaitinfo(&set, NULL);
        if (sig > 0 && sig != SIGCHLD && sig != SIGPIPE)
            (void)kill(root, sig);
    }
}

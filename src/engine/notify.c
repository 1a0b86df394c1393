#include "engine/notify.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/num.h"
#include "base/sys.h"
#include "container/box.h"
#include "container/join.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char signal_prefix[] = "signal:", exec_prefix[] = "exec:";

/* 0 if there is no such signal. */
static int signal_number(const char *name)
{
    uint64_t number = 0;
    if (num_parse_u64(name, 1, (uint64_t)SIGRTMAX, &number, NULL) == RC_OK)
        return (int)number;
    if (strncmp(name, "SIG", 3) == 0)
        name += 3;
    for (int sig = 1; sig < NSIG; sig++) {
        const char *abbrev = sigabbrev_np(sig);
        if (abbrev && strcmp(abbrev, name) == 0)
            return sig;
    }
    return 0;
}

enum rc notify_check(const char *how, struct err *err)
{
    if (strncmp(how, signal_prefix, strlen(signal_prefix)) == 0) {
        const char *name = how + strlen(signal_prefix);
        return signal_number(name) ? RC_OK
                                   : err_set(err, RC_INVALID, "no such signal: '%.32s'", name);
    }
    if (strncmp(how, exec_prefix, strlen(exec_prefix)) == 0 && how[strlen(exec_prefix)])
        return RC_OK;
    return err_set(err, RC_INVALID, "--notify '%.64s': want signal:NAME or exec:COMMAND", how);
}

static _Noreturn void run(const char *command, struct join *j)
{
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL); /* ours is a supervisor's: all is blocked */
    (void)setpgid(0, 0);                         /* so that all of it can be killed */
    if (join_enter(j) < 0)
        _exit(126);
    pid_t pid = fork(); /* a joined PID namespace counts for children only */
    if (pid == 0) {
        (void)setenv("CHREK_DIR", BOX_APP_DIR, 1);
        (void)execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        _exit(126);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static enum rc wait_for(pid_t pid, uint64_t deadline, struct err *err)
{
    CLEANUP(fd_closep) int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {fd, POLLIN, 0};
    int n;
    do
        n = poll(&p, 1, clock_poll_ms(deadline));
    while (n < 0 && errno == EINTR);
    if (n == 0)
        (void)kill(-pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (n == 0)
        return err_set(err, RC_TIMEOUT, "the --notify command did not end in time");
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return RC_OK;
    return err_set(err, RC_IO, "the --notify command failed with status %d",
                   WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static enum rc run_there(const char *command, struct join *j, uint64_t deadline, struct err *err)
{
    pid_t pid = fork();
    if (pid < 0)
        return err_sys(err, "fork");
    if (pid == 0)
        run(command, j);
    (void)setpgid(pid, pid); /* whoever of us is first */
    return wait_for(pid, deadline, err);
}

enum rc notify_application(const char *how, struct box *b, uint64_t deadline, struct err *err)
{
    enum rc rc = notify_check(how, err);
    if (rc)
        return rc;
    if (strncmp(how, signal_prefix, strlen(signal_prefix)) == 0)
        return box_signal(b, signal_number(how + strlen(signal_prefix)), err);
    CLEANUP(join_done) struct join j = JOIN_NOTHING;
    rc = join_open(box_init_pid(b), &j, err);
    return rc ? rc : run_there(how + strlen(exec_prefix), &j, deadline, err);
}

enum rc notify_process(const char *how, pid_t pid, uint64_t deadline, struct err *err)
{
    struct join nowhere = JOIN_NOTHING;
    enum rc rc = notify_check(how, err);
    if (rc)
        return rc;
    if (strncmp(how, signal_prefix, strlen(signal_prefix)) != 0)
        return run_there(how + strlen(exec_prefix), &nowhere, deadline, err);
    if (kill(pid, signal_number(how + strlen(signal_prefix))) < 0)
        return err_sys(err, "signal process %d", (int)pid);
    return RC_OK;
}

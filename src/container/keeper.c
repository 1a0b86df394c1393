#include "container/keeper.h"

#include "base/clock.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#define STOP_NS (5 * CLOCK_S) /* it is stopped already, or about to be */

/* One look.  What stops it comes first as a signal, where we were faster. */
static enum rc look(pid_t pid, bool *stopped, struct err *err)
{
    int status = 0;
    pid_t got = waitpid(pid, &status, __WALL | WNOHANG);
    if (got == 0 || (got < 0 && errno == EINTR))
        return RC_OK;
    if (got < 0 || !WIFSTOPPED(status))
        return err_set(err, RC_NOT_FOUND, "the process that keeps memory has ended");
    *stopped = status >> 16 == PTRACE_EVENT_STOP;
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    if (!*stopped && ptrace(PTRACE_CONT, pid, NULL, (void *)(uintptr_t)WSTOPSIG(status)) < 0)
        return err_sys(err, "stop process %d", (int)pid);
    return RC_OK;
}

enum rc keeper_take(pid_t pid, struct err *err)
{
    uintptr_t options = PTRACE_O_EXITKILL;
    uint64_t deadline = clock_now() + STOP_NS;
    bool stopped = false;
    if (ptrace(PTRACE_SEIZE, pid, NULL, options) < 0) // NOLINT(performance-no-int-to-ptr)
        return errno == ESRCH
                   ? err_set(err, RC_NOT_FOUND, "the process that keeps memory has ended")
                   : err_sys(err, "take over process %d", (int)pid);
    enum rc rc = look(pid, &stopped, err);
    while (!rc && !stopped) {
        struct timespec pause = {0, 50000};
        if (clock_now() > deadline)
            rc = err_set(err, RC_TIMEOUT, "the process that keeps memory does not stop");
        (void)nanosleep(&pause, NULL);
        rc = rc ? rc : look(pid, &stopped, err);
    }
    if (rc)
        keeper_end(pid);
    return rc;
}

void keeper_end(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, __WALL | WNOHANG);
}

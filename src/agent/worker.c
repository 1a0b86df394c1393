#include "agent/worker.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOOK_MS 200 /* between looks at `stop` */
#define EXEC_FAILED 127
#define LET_GO_NS (10 * CLOCK_S) /* for a worker to let go of what it holds */
#define PAUSE_NS 20000000L

/* Between fork and exec: async-signal-safe calls only, since other threads may have held locks. */
static bool place_descriptors(const struct worker *w, int in, int out)
{
    int moved[WORKER_FDS_MAX];
    for (size_t i = 0; i < w->n_fds; i++) /* out of the way of the numbers to be given */
        if ((moved[i] = fcntl(w->fds[i], F_DUPFD_CLOEXEC, WORKER_FD + WORKER_FDS_MAX)) < 0)
            return false;
    in = fcntl(in, F_DUPFD_CLOEXEC, WORKER_FD + WORKER_FDS_MAX);
    out = fcntl(out, F_DUPFD_CLOEXEC, WORKER_FD + WORKER_FDS_MAX);
    if (in < 0 || out < 0 || dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
        return false;
    for (size_t i = 0; i < w->n_fds; i++)
        if (dup2(moved[i], WORKER_FD + (int)i) < 0)
            return false;
    return true;
}

static _Noreturn void become_worker(const struct worker *w, int in, int out, pid_t parent)
{
    char *const argv[] = {(char *)(uintptr_t) "chrek-agent", (char *)(uintptr_t)w->command, NULL};
    sigset_t none;
    const struct sigaction dfl = {.sa_handler = SIG_DFL};
    (void)sigemptyset(&none);
    (void)sigaction(SIGPIPE, &dfl, NULL);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXEC_FAILED);
    if (place_descriptors(w, in, out))
        (void)execv("/proc/self/exe", argv);
    _exit(EXEC_FAILED);
}

/* All that it says. */
static enum rc listen_to(int fd, const atomic_bool *stop, struct buf *out, struct err *err)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        char part[4096];
        int ready = poll(&p, 1, LOOK_MS);
        if (atomic_load(stop))
            return err_set(err, RC_CANCELLED, "the agent ends");
        if (ready == 0 || (ready < 0 && errno == EINTR))
            continue;
        ssize_t n = ready < 0 ? -1 : read(fd, part, sizeof(part));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(err, "read the worker's answer");
        if (n == 0)
            return RC_OK;
        buf_add(out, part, (size_t)n);
        if (out->overflowed)
            return err_set(err, RC_TOO_BIG, "the worker's answer is too long");
    }
}

/* Whether it has ended in time; *out_status. */
static bool has_ended(pid_t pid, uint64_t deadline, int *out_status)
{
    struct timespec pause = {0, PAUSE_NS};
    while (waitpid(pid, out_status, WNOHANG) != pid) {
        if (clock_now() > deadline)
            return false;
        (void)nanosleep(&pause, NULL);
    }
    return true;
}

static enum rc end_worker(pid_t pid, bool force, struct err *err)
{
    int status = 0;
    bool ended = false;
    if (force) {
        (void)kill(pid, SIGTERM); /* it may hold a container that stands still */
        ended = has_ended(pid, clock_now() + LET_GO_NS, &status);
        if (!ended)
            (void)kill(pid, SIGKILL);
    }
    while (!ended && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return RC_OK;
    if (WIFSIGNALED(status))
        return err_set(err, RC_IO, "the worker was ended by signal %d (%s)", WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    return err_set(err, RC_IO, "the worker ended with status %d", WEXITSTATUS(status));
}

enum rc worker_run(const struct worker *w, struct buf *answer, struct err *err)
{
    int p[2];
    if (w->request->overflowed || w->n_fds > WORKER_FDS_MAX)
        return err_set(err, RC_TOO_BIG, "the request has more than %zu bytes", WORKER_MESSAGE_MAX);
    CLEANUP(fd_closep) int in = memfd_create("chrek-request", MFD_CLOEXEC);
    if (in < 0 || pipe2(p, O_CLOEXEC) < 0)
        return err_sys(err, "start a worker");
    CLEANUP(fd_closep) int from = p[0];
    CLEANUP(fd_closep) int to = p[1];
    enum rc rc = sys_write_all(in, w->request->data, w->request->len, err);
    if (rc)
        return rc;
    (void)lseek(in, 0, SEEK_SET);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        return err_sys(err, "start a worker");
    if (pid == 0)
        become_worker(w, in, to, parent);
    fd_closep(&to);
    rc = listen_to(from, w->stop, answer, err);
    enum rc ended = end_worker(pid, rc != RC_OK, rc ? NULL : err);
    return rc ? rc : ended;
}

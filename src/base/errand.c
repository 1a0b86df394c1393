#include "base/errand.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* In the child: nothing but system calls, since other threads may have held locks. */
static _Noreturn void become(char *const *words, char *const *env, int in, int out)
{
    sigset_t none;
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    (void)sigemptyset(&none);
    (void)sigaction(SIGPIPE, &dfl, NULL);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setpgid(0, 0);
    if (dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0)
        (void)execvpe(words[0], words, env);
    _exit(127);
}

/* Everything it writes, or NULL-terminated failure; it has closed its output on RC_OK. */
static enum rc read_answer(int fd, uint64_t deadline, uint8_t *out, size_t cap, size_t *out_len,
                           struct err *err)
{
    for (size_t got = 0;;) {
        struct pollfd p = {fd, POLLIN, 0};
        int n = poll(&p, 1, clock_poll_ms(deadline));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(err, RC_TIMEOUT, "it did not answer in time");
        uint8_t more;
        ssize_t r = got < cap ? read(fd, out + got, cap - got) : read(fd, &more, 1);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return err_sys(err, "read its answer");
        if (r > 0 && got == cap)
            return err_set(err, RC_CORRUPT, "it answered more than %zu bytes", cap);
        got += (size_t)r;
        if (r == 0) {
            *out_len = got;
            return RC_OK;
        }
    }
}

static enum rc wait_for(pid_t pid, bool give_up, uint64_t deadline, int *out_status,
                        struct err *err)
{
    CLEANUP(fd_closep) int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {fd, POLLIN, 0};
    int n = give_up ? 0 : -1, status = 0;
    while (n < 0) {
        n = poll(&p, 1, clock_poll_ms(deadline));
        if (n < 0 && errno != EINTR)
            n = 0;
    }
    if (n == 0)
        (void)kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (n == 0)
        return err_set(err, RC_TIMEOUT, "it did not end in time");
    *out_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return RC_OK;
}

static enum rc converse(char *const *argv, char *const *env, int in, uint64_t deadline,
                        uint8_t *out, size_t cap, size_t *out_len, int *out_status, struct err *err)
{
    int p[2];
    size_t len = 0;
    if (pipe2(p, O_CLOEXEC) < 0)
        return err_sys(err, "make a pipe");
    CLEANUP(fd_closep) int from = p[0];
    CLEANUP(fd_closep) int to = p[1];
    pid_t pid = fork();
    if (pid == 0)
        become(argv, env, in, to);
    if (pid < 0)
        return err_sys(err, "fork");
    (void)setpgid(pid, pid); /* whoever of the two is first */
    fd_closep(&to);
    enum rc rc = read_answer(from, deadline, out, cap, &len, err);
    enum rc ended = wait_for(pid, rc != RC_OK, deadline, out_status, rc ? NULL : err);
    if (!rc)
        rc = ended;
    if (!rc)
        *out_len = len;
    return rc;
}

enum rc errand_run(char *const *argv, char *const *env, const void *in, size_t len,
                   uint64_t deadline, void *out, size_t cap, size_t *out_len, int *out_status,
                   struct err *err)
{
    CLEANUP(fd_closep) int input = memfd_create("chrek-errand", MFD_CLOEXEC);
    if (input < 0)
        return err_sys(err, "make a file for what it is given");
    enum rc rc = sys_write_all(input, in, len, err);
    if (!rc && lseek(input, 0, SEEK_SET) < 0)
        rc = err_sys(err, "rewind what it is given");
    return rc ? rc : converse(argv, env, input, deadline, out, cap, out_len, out_status, err);
}

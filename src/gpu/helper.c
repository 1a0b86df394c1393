#include "gpu/helper.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXEC_FAILED 127

struct gpu_helper {
    char *program;
    pid_t pid; /* 0: none runs */
    int socket;
};

/* ---- finding ---- */

static bool usable(const char *path)
{
    return access(path, X_OK) == 0;
}

enum rc gpu_helper_find(char **out, struct err *err)
{
    static const char *const fixed[] = {"/usr/local/bin/chrek-gpu", "/usr/bin/chrek-gpu"};
    const char *asked = getenv("CHREK_GPU");
    if (asked && *asked) {
        if (!usable(asked))
            return err_sys(err, "$CHREK_GPU: '%s'", asked);
        *out = mem_strdup(asked);
        return RC_OK;
    }
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash) {
        CLEANUP(mem_freep) char *path = mem_asprintf("%.*s/chrek-gpu", (int)(slash - self), self);
        if (usable(path)) {
            *out = STEAL(path);
            return RC_OK;
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(fixed); i++)
        if (usable(fixed[i])) {
            *out = mem_strdup(fixed[i]);
            return RC_OK;
        }
    return err_set(err, RC_NOT_FOUND,
                   "no program chrek-gpu: looked beside chrek, in /usr/local/bin and /usr/bin; "
                   "install it, or name it with $CHREK_GPU");
}

/* ---- starting and ending ---- */

/* Between fork and exec: async-signal-safe calls only. */
static _Noreturn void become_helper(const struct gpu_helper *h, int socket, pid_t parent)
{
    char *const argv[] = {h->program, (char *)(uintptr_t) "serve", NULL};
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)prctl(PR_SET_PDEATHSIG, GPU_ALONE_SIGNAL);
    if (getppid() != parent)
        _exit(EXEC_FAILED);
    (void)setsid();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (dup2(socket, STDIN_FILENO) >= 0 && null >= 0 && dup2(null, STDOUT_FILENO) >= 0 &&
        dup2(null, STDERR_FILENO) >= 0)
        (void)execv(h->program, argv);
    _exit(EXEC_FAILED);
}

static enum rc start(struct gpu_helper *h, struct err *err)
{
    int sv[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
        return err_sys(err, "make a socket for chrek-gpu");
    CLEANUP(fd_closep) int ours = sv[0];
    CLEANUP(fd_closep) int theirs = sv[1];
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0)
        return err_sys(err, "start chrek-gpu");
    if (pid == 0)
        become_helper(h, theirs, parent);
    h->pid = pid;
    h->socket = fd_steal(&ours);
    return RC_OK;
}

/* Returns its wait status, 0 if none ran. */
static int end(struct gpu_helper *h, bool force)
{
    int status = 0;
    if (force && h->pid > 0)
        (void)kill(h->pid, SIGKILL);
    fd_closep(&h->socket); /* it ends by itself at the end of the conversation */
    if (h->pid <= 0)
        return 0;
    while (waitpid(h->pid, &status, 0) < 0 && errno == EINTR)
        ;
    h->pid = 0;
    return status;
}

enum rc gpu_helper_open(const char *program, struct gpu_helper **out, struct err *err)
{
    CLEANUP(gpu_helper_freep) struct gpu_helper *h = mem_zalloc(sizeof(*h));
    h->program = mem_strdup(program);
    h->socket = -1;
    if (!usable(program))
        return err_sys(err, "chrek-gpu: '%s'", program);
    enum rc rc = start(h, err);
    if (!rc)
        *out = STEAL(h);
    return rc;
}

void gpu_helper_freep(struct gpu_helper **p)
{
    struct gpu_helper *h = *p;
    if (!h)
        return;
    (void)end(h, true); /* between calls nothing is lost */
    free(h->program);
    free(h);
    *p = NULL;
}

/* ---- asking ---- */

static enum rc has_ended(struct gpu_helper *h, struct err *err)
{
    int status = end(h, false);
    if (WIFSIGNALED(status))
        return err_set(err, RC_IO, "chrek-gpu was ended by signal %d (%s) in the GPU's driver",
                       WTERMSIG(status), strsignal(WTERMSIG(status)));
    if (WEXITSTATUS(status) == EXEC_FAILED)
        return err_set(err, RC_IO, "cannot execute '%s'", h->program);
    return err_set(err, RC_IO, "chrek-gpu has ended with status %d", WEXITSTATUS(status));
}

static enum rc wait_for_answer(struct gpu_helper *h, const struct gpu_request *request,
                               uint64_t deadline, struct err *err)
{
    struct pollfd p = {.fd = h->socket, .events = POLLIN};
    int n;
    do
        n = poll(&p, 1, clock_poll_ms(deadline));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_sys(err, "wait for chrek-gpu");
    if (n > 0)
        return RC_OK;
    (void)end(h, true);
    return err_set(err, RC_TIMEOUT, "the GPU's driver hangs (request '%s'); chrek-gpu was killed",
                   gpu_verb_name(request->verb));
}

static enum rc converse(struct gpu_helper *h, const struct gpu_request *request, uint64_t deadline,
                        struct gpu_reply *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(mem_freep) char *answer = mem_alloc(GPU_MESSAGE_MAX);
    gpu_request_format(request, &text);
    if (send(h->socket, text.data, text.len, MSG_NOSIGNAL) < 0)
        return has_ended(h, err);
    enum rc rc = wait_for_answer(h, request, deadline, err);
    if (rc)
        return rc;
    ssize_t n = recv(h->socket, answer, GPU_MESSAGE_MAX, 0);
    if (n <= 0)
        return has_ended(h, err);
    return gpu_reply_parse(answer, (size_t)n, out, err);
}

enum rc gpu_helper_call(struct gpu_helper *h, const struct gpu_request *request, uint64_t deadline,
                        struct gpu_reply *out, struct err *err)
{
    enum rc rc = h->pid > 0 ? RC_OK : start(h, err);
    *out = (struct gpu_reply){.rc = RC_OK};
    if (!rc)
        rc = converse(h, request, deadline, out, err);
    if (!rc && out->rc)
        rc = err_set(err, out->rc, "%s", out->why);
    return rc;
}

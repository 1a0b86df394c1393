#include "store/key_command.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORDS_MAX 64
static const char variable[] = "CHREK_KEY_OPERATION=";

/* Cuts `text` into words in place; their number, 0 when there are none or too many. */
static size_t split(char *text, char *words[WORDS_MAX + 1])
{
    static const char blanks[] = " \t\n";
    size_t n = 0;
    for (char *save = NULL, *w = strtok_r(text, blanks, &save); w;
         w = strtok_r(NULL, blanks, &save)) {
        if (n == WORDS_MAX)
            return 0;
        words[n++] = w;
    }
    words[n] = NULL;
    return n;
}

/* Our environment and the variable; the strings are borrowed. */
static char **environment(char *operation)
{
    size_t n = 0, kept = 0;
    while (environ[n])
        n++;
    char **env = mem_zalloc((n + 2) * sizeof(*env));
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], variable, sizeof(variable) - 1) != 0)
            env[kept++] = environ[i];
    env[kept] = operation;
    return env;
}

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

static enum rc wait_for(pid_t pid, bool give_up, uint64_t deadline, struct err *err)
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
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return RC_OK;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return err_set(err, RC_UNAVAILABLE,
                       "it cannot be started; is its path right, and is it "
                       "executable? It is run without a shell");
    return err_set(err, RC_UNAVAILABLE, "it failed with status %d",
                   WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static enum rc converse(char *const *words, char *const *env, int in, uint64_t deadline,
                        uint8_t *out, size_t cap, size_t *out_len, struct err *err)
{
    int p[2];
    size_t len = 0;
    if (pipe2(p, O_CLOEXEC) < 0)
        return err_sys(err, "make a pipe");
    CLEANUP(fd_closep) int from = p[0];
    CLEANUP(fd_closep) int to = p[1];
    pid_t pid = fork();
    if (pid == 0)
        become(words, env, in, to);
    if (pid < 0)
        return err_sys(err, "fork");
    (void)setpgid(pid, pid); /* whoever of the two is first */
    fd_closep(&to);
    enum rc rc = read_answer(from, deadline, out, cap, &len, err);
    enum rc ended = wait_for(pid, rc != RC_OK, deadline, rc ? NULL : err);
    if (!rc)
        rc = ended;
    if (!rc && len == 0)
        rc = err_set(err, RC_CORRUPT, "it answered nothing");
    if (!rc)
        *out_len = len;
    return rc;
}

enum rc key_command_run(const char *command, bool wrap, uint64_t timeout_ns, const void *in,
                        size_t len, void *out, size_t cap, size_t *out_len, struct err *err)
{
    char *words[WORDS_MAX + 1];
    CLEANUP(mem_freep) char *text = mem_strdup(command);
    if (split(text, words) == 0)
        return err_set(err, RC_INVALID, "the key command has no words, or more than %d", WORDS_MAX);
    CLEANUP(mem_freep) char *operation = mem_asprintf("%s%s", variable, wrap ? "wrap" : "unwrap");
    CLEANUP(mem_freep) char **env = environment(operation);
    CLEANUP(fd_closep) int input = memfd_create("chrek-key", MFD_CLOEXEC);
    if (input < 0)
        return err_sys(err, "make a file for the key command");
    enum rc rc = sys_write_all(input, in, len, err);
    if (!rc && lseek(input, 0, SEEK_SET) < 0)
        rc = err_sys(err, "rewind the key command's input");
    if (!rc)
        rc = converse(words, env, input, clock_now() + timeout_ns, out, cap, out_len, err);
    if (rc)
        secret_wipe(out, cap);
    return rc ? err_ctx(err, rc, "key command '%.64s'", words[0]) : RC_OK;
}

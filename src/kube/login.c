#include "kube/login.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/json.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_MAX ((size_t)1 << 20)
#define PATIENCE_NS (60 * CLOCK_S)
#define MARGIN_S 30 /* a token that expires so soon is not begun with */
#define EXEC_FAILED 127

struct kube_login {
    pthread_mutex_t lock; /* guards the token, and that the program runs once */
    char **argv, **env;   /* env: all of it */
    char *version;
    char *token;
    time_t expires; /* 0 = never */
};

/* ---- making ---- */

static size_t count(char *const *list)
{
    size_t n = 0;
    while (list && list[n])
        n++;
    return n;
}

static char **copy(char *const *a, char *const *b, char *last)
{
    char **list = mem_zalloc((count(a) + count(b) + 2) * sizeof(*list));
    size_t n = 0;
    for (; a && *a; a++)
        list[n++] = mem_strdup(*a);
    for (; b && *b; b++)
        list[n++] = mem_strdup(*b);
    list[n] = last;
    return list;
}

static void free_list(char **list)
{
    for (char **p = list; p && *p; p++)
        free(*p);
    free(list);
}

struct kube_login *kube_login_new(char *const *argv, char *const *env, const char *version)
{
    struct kube_login *l = mem_zalloc(sizeof(*l));
    (void)pthread_mutex_init(&l->lock, NULL);
    l->argv = copy(argv, NULL, NULL);
    l->version = mem_strdup(version);
    l->env = copy(environ, env,
                  mem_asprintf("KUBERNETES_EXEC_INFO={\"apiVersion\":\"%s\",\"kind\":"
                               "\"ExecCredential\",\"spec\":{\"interactive\":false}}",
                               version));
    return l;
}

static void wipe(struct kube_login *l)
{
    if (l->token)
        explicit_bzero(l->token, strlen(l->token));
    free(STEAL(l->token));
}

void kube_login_freep(struct kube_login **login)
{
    struct kube_login *l = STEAL(*login);
    if (!l)
        return;
    wipe(l);
    free_list(l->argv);
    free_list(l->env);
    free(l->version);
    (void)pthread_mutex_destroy(&l->lock);
    free(l);
}

/* ---- running the program ---- */

/* Between fork and exec: async-signal-safe calls only, since other threads may have held locks. */
static _Noreturn void become(const struct kube_login *l, int out)
{
    sigset_t none;
    const struct sigaction dfl = {.sa_handler = SIG_DFL};
    (void)sigemptyset(&none);
    (void)sigaction(SIGPIPE, &dfl, NULL);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setpgid(0, 0);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0)
        (void)execvpe(l->argv[0], l->argv, l->env);
    _exit(EXEC_FAILED);
}

static enum rc read_all(int fd, struct buf *out, struct err *err)
{
    uint64_t deadline = clock_now() + PATIENCE_NS;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        char part[4096];
        int ready = poll(&p, 1, clock_poll_ms(deadline));
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready == 0)
            return err_set(err, RC_TIMEOUT, "it did not answer in a minute");
        ssize_t n = ready < 0 ? -1 : read(fd, part, sizeof(part));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(err, "read its answer");
        if (n == 0)
            return RC_OK;
        buf_add(out, part, (size_t)n);
        if (out->overflowed)
            return err_set(err, RC_CORRUPT, "it said more than %zu bytes", ANSWER_MAX);
    }
}

static enum rc end(pid_t pid, bool force, struct err *err)
{
    int status = 0;
    if (force)
        (void)kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return RC_OK;
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXEC_FAILED)
        return err_set(err, RC_DENIED, "it cannot be started: is it installed, and in PATH?");
    return err_set(err, RC_DENIED, "it failed with status %d",
                   WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static enum rc run(const struct kube_login *l, struct buf *out, struct err *err)
{
    int p[2];
    if (pipe2(p, O_CLOEXEC) < 0)
        return err_sys(err, "make a pipe");
    CLEANUP(fd_closep) int from = p[0];
    CLEANUP(fd_closep) int to = p[1];
    pid_t pid = fork();
    if (pid < 0)
        return err_sys(err, "fork");
    if (pid == 0)
        become(l, to);
    (void)setpgid(pid, pid); /* whoever of the two is first */
    fd_closep(&to);
    enum rc rc = read_all(from, out, err);
    enum rc ended = end(pid, rc != RC_OK, rc ? NULL : err);
    return rc ? rc : ended;
}

/* ---- what it says ---- */

static enum rc take(struct kube_login *l, const struct buf *text, struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    struct tm tm = {0};
    enum rc rc = json_parse("what it says", buf_str(text), text->len, &doc, err);
    if (rc)
        return rc;
    yyjson_val *root = yyjson_doc_get_root(doc), *status = yyjson_obj_get(root, "status");
    const char *token = json_str(status, "token", "");
    const char *expires = json_str(status, "expirationTimestamp", NULL);
    if (strcmp(json_str(root, "kind", ""), "ExecCredential") != 0 ||
        strcmp(json_str(root, "apiVersion", ""), l->version) != 0)
        return err_set(err, RC_CORRUPT, "what it says is no ExecCredential of %.80s", l->version);
    if (!*token || token[strcspn(token, "\r\n")])
        return err_set(err, RC_CORRUPT, "its ExecCredential holds no token");
    if (expires && !strptime(expires, "%Y-%m-%dT%H:%M:%S", &tm))
        return err_set(err, RC_CORRUPT, "its token expires at no time: '%.40s'", expires);
    wipe(l);
    l->token = mem_strdup(token);
    l->expires = expires ? timegm(&tm) : 0;
    return RC_OK;
}

static bool is_fresh(const struct kube_login *l)
{
    return l->token && (!l->expires || time(NULL) + MARGIN_S < l->expires);
}

enum rc kube_login_token(struct kube_login *l, struct buf *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = {.max = ANSWER_MAX};
    enum rc rc = RC_OK;
    (void)pthread_mutex_lock(&l->lock);
    if (!is_fresh(l)) {
        rc = run(l, &text, err);
        if (!rc)
            rc = take(l, &text, err);
    }
    if (!rc)
        buf_adds(out, l->token);
    (void)pthread_mutex_unlock(&l->lock);
    if (text.data)
        explicit_bzero(text.data, text.len);
    return rc ? err_ctx(err, rc, "log in by '%.100s'", l->argv[0]) : RC_OK;
}

void kube_login_forget(struct kube_login *l)
{
    (void)pthread_mutex_lock(&l->lock);
    wipe(l);
    (void)pthread_mutex_unlock(&l->lock);
}

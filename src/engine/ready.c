#include "engine/ready.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/sys.h"
#include "net/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <regex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINE_MAX_BYTES 65536
#define PROBE_LIMIT_NS (2 * CLOCK_S) /* one connection or one command */
#define COMMAND_PAUSE_NS (500 * CLOCK_MS)

enum ready_kind { READY_FILE, READY_TCP, READY_HTTP, READY_LOG, READY_AFTER, READY_EXIT_OF };

struct ready {
    enum ready_kind kind;
    bool met;
    bool tls;   /* kind READY_HTTP only */
    char *text; /* file, command, or HTTP path */
    char host[INET6_ADDRSTRLEN];
    uint16_t port;
    uint64_t after_ns;
    regex_t regex; /* kind READY_LOG only */
    char *line[3];
    size_t line_len[3];

    pid_t init;
    int appdir;
    uint64_t start;

    pid_t probe; /* a child that connects or runs the command; 0 = none */
    uint64_t probe_since;
};

static const struct {
    const char *prefix;
    enum ready_kind kind;
} kinds[] = {{"file:", READY_FILE},      {"tcp:", READY_TCP}, {"http:", READY_HTTP},
             {"https:", READY_HTTP},     {"log:", READY_LOG}, {"after:", READY_AFTER},
             {"exit-of:", READY_EXIT_OF}};

static enum rc parse_port(const char *text, size_t len, uint16_t *out, struct err *err)
{
    char digits[8];
    uint64_t port = 0;
    if (len == 0 || len >= sizeof(digits))
        return err_set(err, RC_INVALID, "bad port '%.*s'", (int)(len < 64 ? len : 64), text);
    memcpy(digits, text, len);
    digits[len] = '\0';
    enum rc rc = num_parse_u64(digits, 1, 65535, &port, err);
    if (rc)
        return err_ctx(err, rc, "port");
    *out = (uint16_t)port;
    return RC_OK;
}

/* [HOST:]PORT, up to `len` bytes; HOST may be in brackets. */
static enum rc parse_address(struct ready *r, const char *text, size_t len, struct err *err)
{
    const char *colon = memrchr(text, ':', len);
    const char *host = "127.0.0.1";
    size_t host_len = strlen(host);
    if (colon) {
        host = text;
        host_len = (size_t)(colon - text);
        if (host_len >= 2 && host[0] == '[' && host[host_len - 1] == ']') {
            host++;
            host_len -= 2;
        }
        if (host_len == 9 && memcmp(host, "localhost", 9) == 0) {
            host = "127.0.0.1";
            host_len = 9;
        }
    }
    if (host_len >= sizeof(r->host))
        return err_set(err, RC_INVALID, "'%.64s' is no numeric address", text);
    memcpy(r->host, host, host_len);
    r->host[host_len] = '\0';
    struct in6_addr a;
    if (inet_pton(AF_INET, r->host, &a) != 1 && inet_pton(AF_INET6, r->host, &a) != 1)
        return err_set(err, RC_INVALID, "'%s' is no numeric address", r->host);
    const char *port = colon ? colon + 1 : text;
    return parse_port(port, len - (size_t)(port - text), &r->port, err);
}

/* What follows `http:` or `https:`, which may be the whole URL once more. */
static enum rc parse_http(struct ready *r, const char *text, struct err *err)
{
    if (strncmp(text, "https://", 8) == 0)
        r->tls = true;
    text += strncmp(text, "https://", 8) == 0 ? 8 : strncmp(text, "http://", 7) == 0 ? 7 : 0;
    text += strncmp(text, "//", 2) == 0 ? 2 : 0;
    size_t authority = strcspn(text, "/");
    r->text = mem_strdup(text[authority] ? text + authority : "/");
    for (const char *p = r->text; *p; p++)
        if ((unsigned char)*p <= ' ')
            return err_set(err, RC_INVALID, "blank in URL '%s'", text);
    return parse_address(r, text, authority, err);
}

static enum rc parse_after(struct ready *r, const char *text, struct err *err)
{
    return num_parse_duration(text, &r->after_ns, err);
}

static enum rc parse_regex(struct ready *r, const char *text, struct err *err)
{
    regex_t compiled;
    int bad = regcomp(&compiled, text, REG_EXTENDED | REG_NOSUB);
    if (bad) {
        char why[128];
        (void)regerror(bad, &compiled, why, sizeof(why));
        return err_set(err, RC_INVALID, "regular expression '%s': %s", text, why);
    }
    r->regex = compiled;
    r->kind = READY_LOG;
    return RC_OK;
}

static enum rc parse_rest(struct ready *r, enum ready_kind kind, const char *rest, struct err *err)
{
    switch (kind) {
    case READY_TCP:
        return parse_address(r, rest, strlen(rest), err);
    case READY_HTTP:
        return parse_http(r, rest, err);
    case READY_LOG:
        return parse_regex(r, rest, err);
    case READY_AFTER:
        return parse_after(r, rest, err);
    case READY_FILE:
    case READY_EXIT_OF:
        break;
    }
    r->text = mem_strdup(rest);
    return RC_OK;
}

enum rc ready_parse(const char *text, struct ready **out, struct err *err)
{
    CLEANUP(ready_freep) struct ready *r = mem_zalloc(sizeof(*r));
    r->appdir = -1;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        size_t n = strlen(kinds[i].prefix);
        if (strncmp(text, kinds[i].prefix, n) != 0)
            continue;
        if (!text[n])
            break;
        r->kind = kinds[i].kind == READY_LOG ? READY_FILE : kinds[i].kind; /* until compiled */
        r->tls = strcmp(kinds[i].prefix, "https:") == 0;
        enum rc rc = parse_rest(r, kinds[i].kind, text + n, err);
        if (rc)
            return err_ctx(err, rc, "--ready '%s'", text);
        *out = STEAL(r);
        return RC_OK;
    }
    return err_set(err, RC_INVALID,
                   "--ready '%s': want file:PATH, tcp:PORT, http:URL, https:URL, log:REGEX, "
                   "after:SECONDS, exit-of:CMD or never",
                   text);
}

void ready_place(struct ready *r, pid_t init, int appdir, uint64_t start)
{
    r->init = init;
    r->appdir = appdir;
    r->start = start;
}

static void match_line(struct ready *r, int stream)
{
    r->line[stream][r->line_len[stream]] = '\0';
    if (regexec(&r->regex, r->line[stream], 0, NULL, 0) == 0)
        r->met = true;
    r->line_len[stream] = 0;
}

void ready_output(struct ready *r, int stream, const char *data, size_t len)
{
    if (r->kind != READY_LOG || r->met || stream < 1 || stream > 2)
        return;
    if (!r->line[stream])
        r->line[stream] = mem_alloc(LINE_MAX_BYTES + 1);
    for (size_t i = 0; i < len && !r->met; i++) {
        if (data[i] == '\n' || data[i] == '\r' || r->line_len[stream] == LINE_MAX_BYTES)
            match_line(r, stream);
        else
            r->line[stream][r->line_len[stream]++] = (char)(data[i] ? data[i] : ' ');
    }
}

static bool file_exists(const struct ready *r)
{
    struct stat st;
    if (r->text[0] != '/')
        return r->appdir >= 0 && fstatat(r->appdir, r->text, &st, AT_SYMLINK_NOFOLLOW) == 0;
    char root[64] = "/";
    if (r->init)
        (void)snprintf(root, sizeof(root), "/proc/%d/root", (int)r->init);
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, root, O_PATH | O_DIRECTORY, 0);
    return dir >= 0 && fstatat(dir, r->text + 1, &st, 0) == 0;
}

static int connect_to(const struct ready *r)
{
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(r->port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(r->port)};
    bool v4 = inet_pton(AF_INET, r->host, &in4.sin_addr) == 1;
    if (!v4)
        (void)inet_pton(AF_INET6, r->host, &in6.sin6_addr);
    int sk = socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr *to = v4 ? (const struct sockaddr *)&in4 : (const struct sockaddr *)&in6;
    if (sk >= 0 && connect(sk, to, v4 ? sizeof(in4) : sizeof(in6)) == 0)
        return sk;
    if (sk >= 0)
        (void)close(sk);
    return -1;
}

/* The status is all that counts: a body may be endless, or end badly. */
static enum rc judge(void *good, unsigned status, struct err *err)
{
    *(bool *)good = status <= 399;
    return err_set(err, RC_CANCELLED, "status %u", status);
}

static bool get_succeeds(const struct ready *r)
{
    struct err err = ERR_INIT;
    bool good = false;
    CLEANUP(mem_freep) char *url = NULL;
    CLEANUP(http_closep) struct http_client *client = NULL;
    CLEANUP(http_response_done) struct http_response answer = {0};
    const struct http_options options = {.direct = true, .any_certificate = true, .tries = 1};
    bool v6 = strchr(r->host, ':') != NULL;
    url = mem_asprintf("%s://%s%s%s:%u%s", r->tls ? "https" : "http", v6 ? "[" : "", r->host,
                       v6 ? "]" : "", r->port, r->text);
    const struct http_request request = {.method = "GET",
                                         .url = url,
                                         .head = judge,
                                         .head_arg = &good,
                                         .deadline = clock_now() + PROBE_LIMIT_NS};
    return http_open(&options, &client, &err) == RC_OK &&
           http_do(client, &request, &answer, &err) == RC_CANCELLED && good;
}

static void join(pid_t pid, const char *kind, int flag)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, kind);
    CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, path, O_RDONLY, 0);
    if (fd < 0 || setns(fd, flag) < 0)
        _exit(1);
}

/* Into the mount namespace of a process, to its root and working directory: setns() leads to the
 * root of the namespace. */
static void join_files(pid_t pid)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
    CLEANUP(fd_closep) int root = sys_openat(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
    (void)snprintf(path, sizeof(path), "/proc/%d/cwd", (int)pid);
    CLEANUP(fd_closep) int cwd = sys_openat(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
    join(pid, "mnt", CLONE_NEWNS);
    if (root < 0 || cwd < 0 || fchdir(root) < 0 || chroot(".") < 0 || fchdir(cwd) < 0)
        _exit(1);
}

/* The body of a probe: exit status 0 = ready. */
static _Noreturn void run_probe(const struct ready *r)
{
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setpgid(0, 0); /* a command may have children, which are to end with it */
    (void)alarm((unsigned)(PROBE_LIMIT_NS / CLOCK_S));
    if (r->init)
        join(r->init, "net", CLONE_NEWNET);
    if (r->kind == READY_EXIT_OF) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
            _exit(1);
        if (r->init)
            join_files(r->init);
        (void)alarm(0);
        (void)execl("/bin/sh", "sh", "-c", r->text, (char *)NULL);
        _exit(127);
    }
    _exit((r->kind == READY_TCP ? connect_to(r) >= 0 : get_succeeds(r)) ? 0 : 1);
}

static void kill_probe(struct ready *r)
{
    if (!r->probe)
        return;
    (void)kill(-r->probe, SIGKILL);
    while (waitpid(r->probe, NULL, 0) < 0 && errno == EINTR)
        continue;
    r->probe = 0;
}

static void probe(struct ready *r)
{
    uint64_t now = clock_now();
    int status = 0;
    if (r->probe && waitpid(r->probe, &status, WNOHANG) == r->probe) {
        r->probe = 0;
        r->met = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        if (r->met || r->kind == READY_EXIT_OF)
            return;
    }
    bool pause = r->kind == READY_EXIT_OF && now - r->probe_since < COMMAND_PAUSE_NS;
    if (r->probe || pause)
        return;
    r->probe_since = now;
    r->probe = fork();
    if (r->probe == 0)
        run_probe(r);
    if (r->probe < 0)
        r->probe = 0;
    else
        (void)setpgid(r->probe, r->probe); /* whoever of us is first */
}

bool ready_check(struct ready *r)
{
    if (r->met)
        return true;
    if (r->kind == READY_FILE)
        r->met = file_exists(r);
    else if (r->kind == READY_AFTER)
        r->met = clock_now() - r->start >= r->after_ns;
    else if (r->kind != READY_LOG)
        probe(r);
    return r->met;
}

void ready_freep(struct ready **p)
{
    struct ready *r = STEAL(*p);
    if (!r)
        return;
    kill_probe(r);
    if (r->kind == READY_LOG)
        regfree(&r->regex);
    free(r->line[1]);
    free(r->line[2]);
    free(r->text);
    free(r);
}

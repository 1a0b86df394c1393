#include "harness/httpd.h"

#include "base/mem.h"
#include "harness/test.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 256
#define HEAD_MAX 65536

struct connection {
    struct httpd *server;
    pthread_t thread;
    unsigned number;
    int fd;
};

struct httpd {
    httpd_script *script;
    void *arg;
    int listener;
    unsigned port;
    char url[64];
    pthread_t thread;
    atomic_bool ending;
    atomic_uint requests, n;
    struct connection connections[CONNECTIONS_MAX];
};

/* Whether the descriptor is readable before the server ends. */
static bool wait_for(const struct httpd *s, int fd)
{
    while (!atomic_load(&s->ending)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 20) > 0)
            return true;
    }
    return false;
}

/* Read until the head is complete; bytes behind it stay at its end.  False: no more requests. */
static bool read_head(const struct httpd *s, int fd, char *head, size_t *len, size_t *head_len)
{
    for (;;) {
        head[*len] = '\0';
        const char *end = strstr(head, "\r\n\r\n");
        if (end) {
            *head_len = (size_t)(end + 4 - head);
            return true;
        }
        if (*len == HEAD_MAX || !wait_for(s, fd))
            return false;
        ssize_t n = recv(fd, head + *len, HEAD_MAX - *len, 0);
        if (n <= 0)
            return false;
        *len += (size_t)n;
    }
}

static bool read_body(const struct httpd *s, struct httpd_request *r, const char *have, size_t len)
{
    char text[32];
    r->body_len = strtoull(httpd_header(r, "content-length", text, sizeof(text)), NULL, 10);
    r->body = mem_zalloc(r->body_len + 1);
    size_t got = len < r->body_len ? len : r->body_len;
    memcpy(r->body, have, got);
    while (got < r->body_len) {
        ssize_t n = wait_for(s, r->fd) ? recv(r->fd, r->body + got, r->body_len - got, 0) : 0;
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return true;
}

/* One request; false when the connection is to end. */
static bool serve_one(struct connection *c, char *head, size_t *len)
{
    struct httpd *s = c->server;
    struct httpd_request r = {.server = s, .arg = s->arg, .fd = c->fd, .connection = c->number};
    size_t head_len = 0;
    if (!read_head(s, c->fd, head, len, &head_len) ||
        sscanf(head, "%15s %4095s", r.method, r.target) != 2)
        return false;
    const char *line = strstr(head, "\r\n") + 2;
    r.headers = mem_zalloc(head_len + 1);
    memcpy(r.headers, line, head_len - (size_t)(line - head));
    bool good = read_body(s, &r, head + head_len, *len - head_len);
    if (good) {
        size_t used = head_len + r.body_len < *len ? head_len + r.body_len : *len;
        memmove(head, head + used, *len - used);
        *len -= used;
        r.number = atomic_fetch_add(&s->requests, 1);
        s->script(&r);
    }
    free(r.headers);
    free(r.body);
    c->fd = r.fd;
    return good && c->fd >= 0;
}

static void *serve(void *arg)
{
    struct connection *c = arg;
    char *head = mem_alloc(HEAD_MAX + 1);
    size_t len = 0;
    while (serve_one(c, head, &len))
        ;
    free(head);
    if (c->fd >= 0)
        (void)close(c->fd);
    return NULL;
}

static void *accept_all(void *arg)
{
    struct httpd *s = arg;
    while (wait_for(s, s->listener)) {
        unsigned n = atomic_load(&s->n);
        int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        CHECK(n < CONNECTIONS_MAX);
        s->connections[n] = (struct connection){.server = s, .number = n, .fd = fd};
        CHECK(pthread_create(&s->connections[n].thread, NULL, serve, &s->connections[n]) == 0);
        atomic_store(&s->n, n + 1);
    }
    return NULL;
}

struct httpd *httpd_start(httpd_script *script, void *arg)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    struct httpd *s = mem_zalloc(sizeof(*s));
    s->script = script;
    s->arg = arg;
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(s->listener >= 0 && bind(s->listener, (struct sockaddr *)&a, len) == 0 &&
          getsockname(s->listener, (struct sockaddr *)&a, &len) == 0 &&
          listen(s->listener, 128) == 0);
    s->port = ntohs(a.sin_port);
    (void)snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%u", s->port);
    CHECK(pthread_create(&s->thread, NULL, accept_all, s) == 0);
    return s;
}

void httpd_stopp(struct httpd **server)
{
    struct httpd *s = *server;
    if (!s)
        return;
    atomic_store(&s->ending, true);
    (void)pthread_join(s->thread, NULL);
    for (unsigned i = 0; i < atomic_load(&s->n); i++)
        (void)pthread_join(s->connections[i].thread, NULL);
    (void)close(s->listener);
    free(s);
    *server = NULL;
}

const char *httpd_url(const struct httpd *server)
{
    return server->url;
}

unsigned httpd_port(const struct httpd *server)
{
    return server->port;
}

unsigned httpd_requests(struct httpd *server)
{
    return atomic_load(&server->requests);
}

unsigned httpd_connections(struct httpd *server)
{
    return atomic_load(&server->n);
}

const char *httpd_header(const struct httpd_request *r, const char *name, char *out, size_t cap)
{
    size_t n = strlen(name);
    out[0] = '\0';
    for (const char *line = r->headers, *end; (end = strstr(line, "\r\n")) && end > line;
         line = end + 2)
        if (strncasecmp(line, name, n) == 0 && line[n] == ':') {
            const char *value = line + n + 1 + strspn(line + n + 1, " ");
            (void)snprintf(out, cap, "%.*s", (int)(end - value), value);
        }
    return out;
}

void httpd_send(struct httpd_request *r, const void *data, size_t len)
{
    const char *p = data;
    while (len > 0 && r->fd >= 0) {
        ssize_t n = send(r->fd, p, len, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* the client has gone */
        p += n;
        len -= (size_t)n;
    }
}

void httpd_sendf(struct httpd_request *r, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    CHECK(n >= 0);
    httpd_send(r, text, (size_t)n);
    free(text);
}

void httpd_reply(struct httpd_request *r, unsigned status, const char *headers, const void *body,
                 size_t len)
{
    httpd_sendf(r, "HTTP/1.1 %u Text\r\nContent-Length: %zu\r\n%s\r\n", status, len,
                headers ? headers : "");
    if (strcmp(r->method, "HEAD") != 0)
        httpd_send(r, body, len);
}

void httpd_hang_up(struct httpd_request *r)
{
    (void)close(r->fd);
    r->fd = -1;
}

void httpd_reset(struct httpd_request *r)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(r->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    httpd_hang_up(r);
}

void httpd_pause(unsigned ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    (void)nanosleep(&t, NULL);
}

#include "agent/serve.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/num.h"
#include "codec/json.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/thread.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define TIMEOUT_S 10 /* of the contract, for reading and for writing */
#define HEADERS_MAX 8192
#define BODY_MAX 4096

struct serve {
    struct event_base *base;
    struct evhttp *http;
    struct event *stop; /* made active to end the loop, also one that has not begun yet */
    pthread_t thread;
    bool running;
    uint16_t port;
    char *health;
    struct metrics *metrics;
};

static void answer(struct evhttp_request *r, const char *type, const char *text, size_t len)
{
    struct evbuffer *body = evbuffer_new();
    if (!body || evbuffer_add(body, text, len) < 0) {
        evhttp_send_error(r, HTTP_INTERNAL, NULL);
    } else {
        (void)evhttp_add_header(evhttp_request_get_output_headers(r), "Content-Type", type);
        evhttp_send_reply(r, HTTP_OK, NULL, body);
    }
    if (body)
        evbuffer_free(body);
}

static bool is_get(struct evhttp_request *r)
{
    enum evhttp_cmd_type method = evhttp_request_get_command(r);
    if (method == EVHTTP_REQ_GET || method == EVHTTP_REQ_HEAD)
        return true;
    evhttp_send_error(r, HTTP_BADMETHOD, NULL);
    return false;
}

static void on_health(struct evhttp_request *r, void *arg)
{
    const struct serve *s = arg;
    if (is_get(r))
        answer(r, "application/json", s->health, strlen(s->health));
}

static void on_metrics(struct evhttp_request *r, void *arg)
{
    const struct serve *s = arg;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (!is_get(r))
        return;
    metrics_format(s->metrics, &text);
    answer(r, "text/plain; version=0.0.4; charset=utf-8", buf_str(&text), text.len);
}

/* "[HOST]:PORT": the host may be empty, and in brackets. */
static enum rc split(const char *address, char **out_host, uint16_t *out_port, struct err *err)
{
    const char *colon = strrchr(address, ':');
    uint64_t port = 0;
    if (!colon || num_parse_u64(colon + 1, 0, UINT16_MAX, &port, NULL) != RC_OK)
        return err_set(err, RC_INVALID, "LISTEN_ADDR '%.80s': not of the form HOST:PORT", address);
    size_t len = (size_t)(colon - address);
    if (len >= 2 && address[0] == '[' && address[len - 1] == ']') {
        address++;
        len -= 2;
    }
    *out_host = len > 0 ? mem_asprintf("%.*s", (int)len, address) : NULL;
    *out_port = (uint16_t)port;
    return RC_OK;
}

static uint16_t port_of(struct evhttp_bound_socket *b)
{
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof(a);
    if (getsockname(evhttp_bound_socket_get_fd(b), (struct sockaddr *)&a, &len) < 0)
        return 0;
    return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
                                         : ((struct sockaddr_in *)&a)->sin_port);
}

static enum rc listen_on(struct serve *s, const char *address, struct err *err)
{
    CLEANUP(mem_freep) char *host = NULL;
    uint16_t port = 0;
    enum rc rc = split(address, &host, &port, err);
    if (rc)
        return rc;
    struct evhttp_bound_socket *b = NULL;
    if (!host) /* both families where there is IPv6 */
        b = evhttp_bind_socket_with_handle(s->http, "::", port);
    if (!b)
        b = evhttp_bind_socket_with_handle(s->http, host ? host : "0.0.0.0", port);
    if (!b)
        return err_set(err, RC_IO,
                       "cannot listen on '%.80s'; is another agent on this network, or does the "
                       "address belong to another machine?",
                       address);
    s->port = port_of(b);
    return RC_OK;
}

static void on_stop(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)event_base_loopbreak(((struct serve *)arg)->base);
}

static void *run(void *arg)
{
    struct serve *s = arg;
    (void)event_base_dispatch(s->base);
    return NULL;
}

static void describe_health(struct serve *s, const char *node)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    (void)yyjson_mut_obj_add_str(doc, o, "status", "healthy");
    (void)yyjson_mut_obj_add_str(doc, o, "node_name", node);
    s->health = yyjson_mut_write(doc, YYJSON_WRITE_ALLOW_INVALID_UNICODE, NULL);
    if (!s->health)
        abort(); /* only for want of memory */
}

enum rc serve_start(const char *address, const char *node, struct metrics *metrics,
                    struct serve **out, struct err *err)
{
    CLEANUP(serve_stopp) struct serve *s = mem_zalloc(sizeof(*s));
    (void)evthread_use_pthreads();
    s->metrics = metrics;
    describe_health(s, node);
    s->base = event_base_new();
    s->http = s->base ? evhttp_new(s->base) : NULL;
    s->stop = s->base ? event_new(s->base, -1, EV_PERSIST, on_stop, s) : NULL;
    if (!s->http || !s->stop)
        return err_set(err, RC_IO, "cannot make an HTTP server");
    evhttp_set_timeout(s->http, TIMEOUT_S);
    evhttp_set_max_headers_size(s->http, HEADERS_MAX);
    evhttp_set_max_body_size(s->http, BODY_MAX);
    evhttp_set_allowed_methods(s->http, UINT16_MAX); /* the others get 405 rather than 501 */
    (void)evhttp_set_cb(s->http, "/health", on_health, s);
    (void)evhttp_set_cb(s->http, "/metrics", on_metrics, s);
    enum rc rc = listen_on(s, address, err);
    if (rc)
        return rc;
    if (pthread_create(&s->thread, NULL, run, s) != 0)
        return err_sys(err, "start a thread");
    s->running = true;
    *out = STEAL(s);
    return RC_OK;
}

uint16_t serve_port(const struct serve *s)
{
    return s->port;
}

void serve_stopp(struct serve **serve)
{
    struct serve *s = STEAL(*serve);
    if (!s)
        return;
    if (s->running) {
        event_active(s->stop, 0, 0);
        (void)pthread_join(s->thread, NULL);
    }
    if (s->stop)
        event_free(s->stop);
    if (s->http)
        evhttp_free(s->http);
    if (s->base)
        event_base_free(s->base);
    free(s->health);
    free(s);
}

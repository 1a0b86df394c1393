#include "base/clock.h"
#include "base/compiler.h"
#include "harness/httpd.h"
#include "harness/test.h"
#include "net/grpc.h"

#include <stdio.h>
#include <stdlib.h>

/* Over HTTP/1.1, whose trailers are as good for this; the tests of src/cri use HTTP/2.  The URL's
 * host is fixed, so the client is led to the server by a proxy. */
static struct http_client *client(const struct httpd *s)
{
    struct err err = ERR_INIT;
    struct http_client *c = NULL;
    const struct http_options o = {
        .tries = 2, .backoff_min_ns = CLOCK_MS, .backoff_max_ns = 2 * CLOCK_MS};
    CHECK(setenv("http_proxy", httpd_url(s), 1) == 0 && unsetenv("no_proxy") == 0 &&
          unsetenv("NO_PROXY") == 0);
    CHECK_OK(http_open(&o, &c, &err));
    return c;
}

/* What the server answers: a body, then trailers. */
struct script {
    const void *body;
    size_t len;
    const char *trailers;
    char seen[64]; /* the request's body, in hexadecimal */
    char timeout[32];
};

static void answer(struct httpd_request *r)
{
    struct script *s = r->arg;
    s->seen[0] = '\0';
    for (size_t i = 0; i < r->body_len && i < 20; i++)
        (void)snprintf(s->seen + 2 * i, 3, "%02x", (unsigned char)r->body[i]);
    (void)httpd_header(r, "grpc-timeout", s->timeout, sizeof(s->timeout));
    char text[64];
    CHECK_STR(httpd_header(r, "te", text, sizeof(text)), "trailers");
    CHECK_STR(httpd_header(r, "content-type", text, sizeof(text)), "application/grpc");
    httpd_sendf(r, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    if (s->len > 0) {
        httpd_sendf(r, "%zx\r\n", s->len);
        httpd_send(r, s->body, s->len);
        httpd_sendf(r, "\r\n");
    }
    httpd_sendf(r, "0\r\n%s\r\n", s->trailers);
}

static enum rc call(struct script *script, struct buf *out, struct err *err)
{
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(answer, script);
    CLEANUP(http_closep) struct http_client *c = client(s);
    return grpc_do(
        c,
        &(struct grpc_call){
            .method = "/a.B/C", .message = "xy", .len = 2, .deadline = clock_now() + 20 * CLOCK_S},
        out, err);
}

TEST(a_message_goes_out_and_one_comes_back)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    struct script s = {.body = "\0\0\0\0\3abc", .len = 8, .trailers = "grpc-status: 0\r\n"};
    CHECK_OK(call(&s, &out, &err));
    CHECK_STR(buf_str(&out), "abc");
    CHECK_STR(s.seen, "00000000027879");
    CHECK(strchr(s.timeout, 'm') && atoi(s.timeout) > 10000 && atoi(s.timeout) <= 20000);
}

TEST(a_refusal_has_the_servers_words)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    struct script s = {.trailers =
                           "grpc-status: 5\r\ngrpc-message: no such %22thing%22%0A100%\r\n"};
    CHECK_RC(call(&s, &out, &err), RC_NOT_FOUND);
    CHECK_STR(err.msg, "/a.B/C: no such \"thing\" 100% (gRPC status 5)");
    CHECK_INT(out.len, 0);
}

TEST(what_is_no_grpc_is_refused)
{
    static const struct {
        const char *body;
        size_t len;
        const char *trailers;
        enum rc want;
    } cases[] = {
        {"\0\0\0\0\3abc", 8, "", RC_CORRUPT},
        {"\0\0\0\0\3abc", 8, "grpc-status: many\r\n", RC_CORRUPT},
        {"\0\0\0\0\4abc", 8, "grpc-status: 0\r\n", RC_CORRUPT},
        {"\0\0\0\0\2abc", 8, "grpc-status: 0\r\n", RC_CORRUPT},
        {"\0\0", 2, "grpc-status: 0\r\n", RC_CORRUPT},
        {"", 0, "grpc-status: 0\r\n", RC_CORRUPT},
        {"\1\0\0\0\3abc", 8, "grpc-status: 0\r\n", RC_UNSUPPORTED},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        CLEANUP(buf_done) struct buf out = BUF_INIT;
        struct script s = {
            .body = cases[i].body, .len = cases[i].len, .trailers = cases[i].trailers};
        CHECK_RC(call(&s, &out, &err), cases[i].want);
    }
}

TEST(every_status_has_a_code)
{
    CHECK(grpc_status_rc(0) == RC_OK);
    for (unsigned i = 1; i < 40; i++)
        CHECK(grpc_status_rc(i) != RC_OK);
    CHECK(grpc_status_rc(4) == RC_TIMEOUT && grpc_status_rc(12) == RC_UNSUPPORTED &&
          grpc_status_rc(14) == RC_UNAVAILABLE && grpc_status_rc(16) == RC_DENIED);
}

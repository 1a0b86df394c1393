#include "base/clock.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/httpd.h"
#include "harness/test.h"
#include "net/http.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Quick: pauses of a millisecond, and a stall after half a second. */
static struct http_client *client(void)
{
    struct err err = ERR_INIT;
    const struct http_options o = {.direct = true,
                                   .backoff_min_ns = CLOCK_MS,
                                   .backoff_max_ns = 5 * CLOCK_MS,
                                   .stall_timeout_ns = 500 * CLOCK_MS};
    struct http_client *c = NULL;
    CHECK_OK(http_open(&o, &c, &err));
    return c;
}

static const char *at(const struct httpd *s, const char *path)
{
    static _Thread_local char url[256];
    (void)snprintf(url, sizeof(url), "%s%s", httpd_url(s), path);
    return url;
}

static char pattern_at(uint64_t i)
{
    return (char)(i * 131 + (i >> 8) * 7);
}

static char *pattern(size_t len)
{
    char *p = mem_alloc(len + 1);
    for (size_t i = 0; i < len; i++)
        p[i] = pattern_at(i);
    return p;
}

/* The range that was asked for, 0..size when none was. */
static void range_of(const struct httpd_request *r, size_t size, size_t *from, size_t *to)
{
    char text[64];
    *from = 0;
    *to = size;
    if (sscanf(httpd_header(r, "range", text, sizeof(text)), "bytes=%zu-%zu", from, to) == 2)
        ++*to;
}

/* ---- answers ---- */

static void echo(struct httpd_request *r)
{
    char text[64];
    CHECK_STR(httpd_header(r, "x-test", text, sizeof(text)), "yes");
    CHECK_STR(httpd_header(r, "expect", text, sizeof(text)), "");
    CHECK(strncmp(httpd_header(r, "user-agent", text, sizeof(text)), "chrek/", 6) == 0);
    CHECK_STR(r->target, "/a%2Fb/../c?x=1");
    httpd_reply(r, 201, "X-Method: first\r\nx-empty:\r\n", r->body, r->body_len);
}

TEST(a_request_is_sent_as_it_is_and_the_answer_comes_back)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(echo, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    static const char *const methods[] = {"PUT", "POST", "PATCH"};
    const char *const headers[] = {"X-Test: yes"};
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        CLEANUP(http_response_done) struct http_response a = {0};
        CHECK_OK(http_do(c,
                         &(struct http_request){.method = methods[i],
                                                .url = at(s, "/a%2Fb/../c?x=1"),
                                                .headers = headers,
                                                .n_headers = 1,
                                                .body = "hello",
                                                .body_len = 5,
                                                .repeat = HTTP_REPEAT_YES},
                         &a, &err));
        CHECK_INT(a.status, 201);
        CHECK_INT(a.tries, 1);
        CHECK_STR(buf_str(&a.body), "hello");
        CHECK_STR(http_header(&a, "X-METHOD"), "first");
        CHECK_STR(http_header(&a, "x-empty"), "");
        CHECK(!http_header(&a, "x-missing"));
    }
    CHECK_INT(httpd_connections(s), 1); /* kept alive */
}

static void status_of_path(struct httpd_request *r)
{
    unsigned status = (unsigned)strtoul(r->target + 1, NULL, 10);
    httpd_reply(r, status, NULL, "why", 3);
}

TEST(any_status_is_an_answer_and_has_a_code)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(status_of_path, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    static const struct {
        const char *path;
        enum rc rc;
        unsigned tries;
    } cases[] = {
        {"/200", RC_OK, 1},          {"/301", RC_IO, 1},          {"/400", RC_IO, 1},
        {"/401", RC_DENIED, 1},      {"/403", RC_DENIED, 1},      {"/404", RC_NOT_FOUND, 1},
        {"/409", RC_CONFLICT, 1},    {"/410", RC_NOT_FOUND, 1},   {"/412", RC_EXISTS, 1},
        {"/413", RC_TOO_BIG, 1},     {"/416", RC_CORRUPT, 1},     {"/507", RC_NO_SPACE, 1},
        {"/501", RC_IO, 1},          {"/408", RC_UNAVAILABLE, 6}, {"/429", RC_UNAVAILABLE, 6},
        {"/500", RC_UNAVAILABLE, 6}, {"/502", RC_UNAVAILABLE, 6}, {"/503", RC_UNAVAILABLE, 6},
        {"/504", RC_UNAVAILABLE, 6}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        CLEANUP(http_response_done) struct http_response a = {0};
        char into[3] = "abc";
        CHECK_OK(
            http_do(c,
                    &(struct http_request){
                        .method = "GET", .url = at(s, cases[i].path), .into = into, .into_len = 3},
                    &a, &err));
        CHECK_INT(http_status_rc(a.status), cases[i].rc);
        CHECK_INT(a.tries, cases[i].tries);
        CHECK_STR(buf_str(&a.body), i == 0 ? "" : "why"); /* problems do not go to the caller */
        CHECK(memcmp(into, i == 0 ? "why" : "abc", 3) == 0 || i == 0);
        memcpy(into, "abc", 3);
    }
}

static void long_body(struct httpd_request *r)
{
    char *body = pattern(5000);
    httpd_reply(r, r->number == 1 ? 404 : 200, NULL, body, 5000);
    free(body);
}

static enum rc refuse(void *arg, const void *data, size_t len, struct err *err)
{
    (void)arg, (void)data, (void)len;
    return err_set(err, RC_NO_SPACE, "enough");
}

TEST(bodies_are_bounded)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(long_body, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    struct http_response a = {.status = 77};
    struct http_request r = {.method = "GET", .url = at(s, "/x?secret"), .body_max = 100};
    CHECK_RC(http_do(c, &r, &a, &err), RC_TOO_BIG);
    CHECK(a.status == 77 && !strstr(err.msg, "secret") && strstr(err.msg, "/x"));
    CHECK_OK(http_do(c, &r, &a, &err)); /* that of a 404 is cut */
    CHECK_INT(a.status, 404);
    CHECK_INT(a.body.len, 100);
    http_response_done(&a);
    char small[100];
    r.into = small;
    r.into_len = sizeof(small);
    CHECK_RC(http_do(c, &r, &a, &err), RC_CORRUPT);
    char *big = mem_alloc(6000);
    r.into = big;
    r.into_len = 6000;
    CHECK_RC(http_do(c, &r, &a, &err), RC_CORRUPT);
    free(big);
    r.into = NULL;
    r.sink = refuse;
    CHECK_RC(http_do(c, &r, &a, &err), RC_NO_SPACE);
    CHECK(strstr(err.msg, "enough"));
}

static void empty(struct httpd_request *r)
{
    char text[32];
    CHECK_STR(httpd_header(r, "content-length", text, sizeof(text)),
              strcmp(r->method, "PUT") == 0 ? "0" : "");
    httpd_reply(r, 200, NULL, "abc", 3);
}

TEST(a_head_has_no_body_and_an_empty_body_has_a_length)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(empty, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    CLEANUP(http_response_done) struct http_response head = {0}, put = {0};
    CHECK_OK(http_do(c, &(struct http_request){.method = "HEAD", .url = at(s, "/")}, &head, &err));
    CHECK_STR(http_header(&head, "content-length"), "3");
    CHECK_INT(head.body.len, 0);
    CHECK_OK(http_do(c,
                     &(struct http_request){.method = "PUT", .url = at(s, "/"), .has_body = true},
                     &put, &err));
    CHECK_STR(buf_str(&put.body), "abc");
}

/* ---- what breaks ---- */

#define BIG ((size_t)1 << 20)

/* Sends at most a quarter of what is asked for, then breaks in a way that changes. */
static void break_off(struct httpd_request *r)
{
    size_t from, to;
    range_of(r, BIG, &from, &to);
    char *body = pattern(BIG);
    size_t n = to - from, part = n > BIG / 5 ? BIG / 5 : n;
    httpd_sendf(r,
                "HTTP/1.1 %u x\r\nContent-Length: %zu\r\nContent-Range: bytes %zu-%zu/%zu\r\n\r\n",
                from > 0 ? 206U : 200U, n, from, to - 1, BIG);
    httpd_send(r, body + from, part);
    free(body);
    if (part == n)
        return;
    if (r->number % 3 == 0)
        httpd_reset(r);
    else if (r->number % 3 == 1)
        httpd_hang_up(r);
    else
        httpd_pause(800); /* and the client has gone */
}

TEST(a_body_that_breaks_off_goes_on_where_it_was)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(break_off, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    CLEANUP(http_response_done) struct http_response a = {0};
    char *got = mem_zalloc(BIG), *want = pattern(BIG);
    CHECK_OK(http_do(
        c, &(struct http_request){.method = "GET", .url = at(s, "/"), .into = got, .into_len = BIG},
        &a, &err));
    CHECK(memcmp(got, want, BIG) == 0);
    CHECK(a.tries >= 5 && a.tries <= 12);
    free(got);
    free(want);
}

/* Knows no ranges, and breaks off the first time. */
static void no_ranges(struct httpd_request *r)
{
    char *body = pattern(BIG);
    httpd_sendf(r, "HTTP/1.1 200 x\r\nContent-Length: %zu\r\n\r\n", BIG);
    httpd_send(r, body, r->number == 0 ? BIG / 2 : BIG);
    if (r->number == 0)
        httpd_reset(r);
    free(body);
}

struct seen {
    uint64_t bytes;
    bool right;
};

static enum rc look(void *arg, const void *data, size_t len, struct err *err)
{
    struct seen *seen = arg;
    (void)err;
    for (size_t i = 0; i < len; i++)
        seen->right &= ((const char *)data)[i] == pattern_at(seen->bytes + i);
    seen->bytes += len;
    return RC_OK;
}

TEST(a_sink_sees_each_byte_once_even_without_ranges)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(no_ranges, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    CLEANUP(http_response_done) struct http_response a = {0};
    struct seen seen = {.right = true};
    CHECK_OK(http_do(
        c,
        &(struct http_request){.method = "GET", .url = at(s, "/"), .sink = look, .sink_arg = &seen},
        &a, &err));
    CHECK(seen.bytes == BIG && seen.right);
    CHECK_INT(a.tries, 2);
}

/* Ranges, each of them wrong in the way that the path says, at first. */
static void wrong_range(struct httpd_request *r)
{
    char *body = pattern(BIG);
    size_t from, to;
    range_of(r, BIG, &from, &to);
    unsigned bad = r->number < 2 ? (unsigned)r->target[1] : 0;
    if (bad == 'a') /* all of it */
        httpd_reply(r, 200, NULL, body, BIG);
    else if (bad == 'o') { /* another */
        httpd_sendf(r, "HTTP/1.1 206 x\r\nContent-Length: 3\r\nContent-Range: bytes 0-2/9\r\n\r\n");
        httpd_send(r, body, 3);
    } else if (bad == 'n') /* without saying which */
        httpd_reply(r, 206, NULL, body + from, to - from);
    else {
        size_t n = bad == 's' ? (to - from) / 2 : to - from; /* shorter */
        httpd_sendf(r,
                    "HTTP/1.1 206 x\r\nContent-Length: %zu\r\n"
                    "Content-Range: bytes %zu-%zu/%zu\r\n\r\n",
                    n, from, from + n - 1, BIG);
        httpd_send(r, body + from, n);
    }
    free(body);
}

TEST(a_wrong_range_is_never_taken)
{
    struct err err = ERR_INIT;
    static const char *const paths[] = {"/all", "/other", "/nothing", "/short"};
    char *want = pattern(BIG);
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        CLEANUP(httpd_stopp) struct httpd *s = httpd_start(wrong_range, NULL);
        CLEANUP(http_closep) struct http_client *c = client();
        CLEANUP(http_response_done) struct http_response a = {0};
        char got[1000] = "";
        struct http_request r = {.method = "GET",
                                 .url = at(s, paths[i]),
                                 .into = got,
                                 .into_len = sizeof(got),
                                 .range = true,
                                 .range_offset = 5000,
                                 .range_len = sizeof(got)};
        CHECK_OK(http_do(c, &r, &a, &err));
        CHECK(memcmp(got, want + 5000, sizeof(got)) == 0);
        CHECK_INT(a.tries, 3);
    }
    free(want);
}

static void always_short(struct httpd_request *r)
{
    httpd_sendf(r, "HTTP/1.1 206 x\r\nContent-Length: 0\r\nContent-Range: bytes 10-19/99\r\n\r\n");
}

TEST(a_range_that_stays_short_is_corrupt)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(always_short, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    struct http_response a = {0};
    struct http_request r = {
        .method = "GET", .url = at(s, "/"), .range = true, .range_offset = 10, .range_len = 10};
    CHECK_RC(http_do(c, &r, &a, &err), RC_CORRUPT);
    CHECK_INT(httpd_requests(s), 6);
    r.range_len = 0;
    CHECK_RC(http_do(c, &r, &a, &err), RC_INVALID);
}

/* An object of 100 bytes. */
static void short_object(struct httpd_request *r)
{
    size_t from, to;
    range_of(r, 100, &from, &to);
    char *body = pattern(100);
    if (r->target[1] == 'e') {
        httpd_reply(r, 416, "Content-Range: bytes */0\r\n", NULL, 0);
    } else {
        httpd_sendf(r,
                    "HTTP/1.1 206 x\r\nContent-Length: %zu\r\n"
                    "Content-Range: bytes %zu-99/100\r\n\r\n",
                    100 - from, from);
        httpd_send(r, body + from, r->number == 0 ? 40 : 100 - from);
        if (r->number == 0)
            httpd_reset(r);
    }
    free(body);
}

TEST(a_range_may_be_short_when_the_caller_says_so)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(short_object, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    CLEANUP(http_response_done) struct http_response a = {0}, empty_one = {0};
    char got[1000] = "", *want = pattern(100);
    struct http_request r = {.method = "GET",
                             .url = at(s, "/"),
                             .into = got,
                             .into_len = sizeof(got),
                             .range = true,
                             .range_short = true,
                             .range_len = sizeof(got)};
    CHECK_OK(http_do(c, &r, &a, &err));
    CHECK(a.received == 100 && a.tries == 2 && memcmp(got, want, 100) == 0);
    r.url = at(s, "/empty");
    CHECK_OK(http_do(c, &r, &empty_one, &err));
    CHECK(empty_one.status == 416 && empty_one.received == 0);
    r.url = at(s, "/");
    r.range_short = false;
    struct http_response none;
    CHECK_RC(http_do(c, &r, &none, &err), RC_CORRUPT);
    free(want);
}

static void gibberish(struct httpd_request *r)
{
    httpd_sendf(r, "220 mail.example ESMTP\r\n");
    httpd_hang_up(r);
}

TEST(what_is_no_http_is_corrupt)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(gibberish, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    struct http_response a = {0};
    CHECK_RC(http_do(c, &(struct http_request){.method = "GET", .url = at(s, "/")}, &a, &err),
             RC_CORRUPT);
}

static void endless_header(struct httpd_request *r)
{
    httpd_sendf(r, "HTTP/1.1 200 x\r\n");
    for (unsigned i = 0; i < 100; i++)
        httpd_sendf(r, "X-%u: %01000u\r\n", i, i);
    httpd_sendf(r, "Content-Length: 0\r\n\r\n");
}

static void breaks_after_the_head(struct httpd_request *r)
{
    static const char head[] = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 None\r\nA: b\r\n";
    (void)!write(r->fd, head, strlen(head));
    (void)!write(r->fd, "Content-Length: 9\r\n\r\n", 22);
    httpd_reset(r);
}

static enum rc note_status(void *arg, unsigned status, struct err *err)
{
    *(unsigned *)arg = status;
    return err_set(err, RC_CANCELLED, "seen");
}

TEST(a_head_is_told_before_its_body)
{
    struct err err = ERR_INIT;
    unsigned status = 0;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(breaks_after_the_head, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    CLEANUP(http_response_done) struct http_response a = {0};
    const struct http_request r = {
        .method = "GET", .url = at(s, "/"), .head = note_status, .head_arg = &status};
    CHECK_RC(http_do(c, &r, &a, &err), RC_CANCELLED);
    CHECK_INT(status, 204);
    CHECK_INT(httpd_requests(s), 1); /* what a callback refuses is not tried again */
}

TEST(a_header_is_bounded)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(endless_header, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    struct http_response a = {0};
    CHECK_RC(http_do(c, &(struct http_request){.method = "GET", .url = at(s, "/")}, &a, &err),
             RC_TOO_BIG);
}

/* ---- repeating ---- */

/* 503 three times, then fine; the body must be whole each time. */
static void storm(struct httpd_request *r)
{
    CHECK(r->body_len == 0 || (r->body_len == BIG && r->body[BIG - 1] == pattern_at(BIG - 1)));
    httpd_reply(r, r->number < 3 ? 503 : 200, "Retry-After: 0\r\n", "x", 1);
}

static enum rc give(void *arg, uint64_t offset, void *data, size_t len, size_t *out_len,
                    struct err *err)
{
    (void)arg, (void)err;
    *out_len = len > 7777 ? 7777 : len;
    for (size_t i = 0; i < *out_len; i++)
        ((char *)data)[i] = pattern_at(offset + i);
    return RC_OK;
}

static enum rc no_source(void *arg, uint64_t offset, void *data, size_t len, size_t *out_len,
                         struct err *err)
{
    (void)arg, (void)offset, (void)data, (void)len;
    *out_len = 0;
    return err_set(err, RC_NOT_FOUND, "nothing to give");
}

TEST(a_storm_of_503_passes_and_a_body_is_sent_anew)
{
    struct err err = ERR_INIT;
    for (int from_source = 0; from_source < 2; from_source++) {
        CLEANUP(httpd_stopp) struct httpd *s = httpd_start(storm, NULL);
        CLEANUP(http_closep) struct http_client *c = client();
        CLEANUP(http_response_done) struct http_response a = {0};
        char *body = pattern(BIG);
        struct http_request r = {.method = "PUT", .url = at(s, "/"), .body = body, .body_len = BIG};
        if (from_source)
            r.source = give;
        CHECK_OK(http_do(c, &r, &a, &err));
        CHECK(a.status == 200 && a.tries == 4);
        free(body);
        r.source = no_source;
        struct http_response none;
        CHECK_RC(http_do(c, &r, &none, &err), RC_NOT_FOUND);
    }
}

TEST(what_may_not_be_repeated_is_not)
{
    struct err err = ERR_INIT;
    static const struct {
        const char *method;
        enum http_repeat repeat;
        unsigned tries;
    } cases[] = {{"POST", HTTP_REPEAT_BY_METHOD, 1},
                 {"POST", HTTP_REPEAT_YES, 4},
                 {"PATCH", HTTP_REPEAT_BY_METHOD, 1},
                 {"DELETE", HTTP_REPEAT_BY_METHOD, 4},
                 {"GET", HTTP_REPEAT_NO, 1}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        CLEANUP(httpd_stopp) struct httpd *s = httpd_start(storm, NULL);
        CLEANUP(http_closep) struct http_client *c = client();
        CLEANUP(http_response_done) struct http_response a = {0};
        CHECK_OK(http_do(c,
                         &(struct http_request){.method = cases[i].method,
                                                .url = at(s, "/"),
                                                .repeat = cases[i].repeat},
                         &a, &err));
        CHECK_INT(a.tries, cases[i].tries);
    }
}

static void reset_at_once(struct httpd_request *r)
{
    httpd_reset(r);
}

TEST(a_reset_before_the_answer_is_repeated_only_where_allowed)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(reset_at_once, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    struct http_response a = {0};
    struct http_request r = {.method = "POST", .url = at(s, "/"), .body = "x", .body_len = 1};
    CHECK_RC(http_do(c, &r, &a, &err), RC_UNAVAILABLE);
    CHECK_INT(httpd_requests(s), 1);
    r.method = "PUT";
    CHECK_RC(http_do(c, &r, &a, &err), RC_UNAVAILABLE);
    CHECK_INT(httpd_requests(s), 7);
    CHECK(strstr(err.msg, "PUT http://127.0.0.1") && strstr(err.msg, "6 tries"));
}

static void one_answer_each(struct httpd_request *r)
{
    unsigned *seen = r->arg;
    if (seen[r->connection]++ > 0)
        httpd_reset(r);
    else
        httpd_reply(r, 200, NULL, NULL, 0);
}

TEST(a_connection_that_ended_does_not_make_a_request_go_twice)
{
    struct err err = ERR_INIT;
    unsigned seen[16] = {0};
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(one_answer_each, seen);
    CLEANUP(http_closep) struct http_client *c = client();
    CLEANUP(http_response_done) struct http_response a = {0}, b = {0}, put = {0};
    struct http_request r = {.method = "POST", .url = at(s, "/"), .body = "x", .body_len = 1};
    CHECK_OK(http_do(c, &r, &a, &err));
    CHECK_OK(http_do(c, &r, &b, &err));
    CHECK_INT(httpd_requests(s), 2);
    r.method = "PUT";
    CHECK_OK(http_do(c, &r, &put, &err));
    CHECK_INT(put.status, 200);
}

static bool with_other_credentials(void *arg, unsigned status, const struct buf *body)
{
    unsigned *asked = arg;
    CHECK(status == 403 && strcmp(buf_str(body), "expired") == 0);
    return ++*asked < 3;
}

static void expired(struct httpd_request *r)
{
    char text[64];
    (void)httpd_header(r, "x-fresh", text, sizeof(text));
    CHECK_INT(strtoul(text, NULL, 10), r->number + 1); /* prepared anew each time */
    httpd_reply(r, r->number < 2 ? 403 : 200, NULL, "expired", 7);
}

static enum rc freshen(void *arg, struct http_try *t, struct err *err)
{
    unsigned *n = arg;
    if (*n == 99)
        return err_set(err, RC_DENIED, "no credentials");
    http_try_header(t, "X-Fresh: %u", ++*n);
    return RC_OK;
}

TEST(each_try_is_prepared_and_the_caller_may_want_another)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(expired, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    CLEANUP(http_response_done) struct http_response a = {0};
    unsigned asked = 0, prepared = 0;
    struct http_request r = {.method = "GET",
                             .url = at(s, "/"),
                             .again = with_other_credentials,
                             .again_arg = &asked,
                             .prepare = freshen,
                             .prepare_arg = &prepared};
    CHECK_OK(http_do(c, &r, &a, &err));
    CHECK(a.status == 200 && asked == 2 && prepared == 3);
    prepared = 99;
    struct http_response none;
    CHECK_RC(http_do(c, &r, &none, &err), RC_DENIED);
}

TEST(nobody_listening_is_unavailable)
{
    struct err err = ERR_INIT;
    struct httpd *s = httpd_start(echo, NULL);
    char url[64];
    (void)snprintf(url, sizeof(url), "%s/", httpd_url(s));
    httpd_stopp(&s);
    CLEANUP(http_closep) struct http_client *c = client();
    struct http_response a = {0};
    CHECK_RC(http_do(c, &(struct http_request){.method = "POST", .url = url}, &a, &err),
             RC_UNAVAILABLE);
    CHECK(strstr(err.msg, "6 tries")); /* nothing was sent, so it may be repeated */
}

TEST(urls_that_are_none_are_invalid)
{
    struct err err = ERR_INIT;
    CLEANUP(http_closep) struct http_client *c = client();
    static const char *const bad[] = {
        "", "/x", "ftp://127.0.0.1/", "file:///etc/passwd", "http://", "http://[::1/"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct http_response a;
        CHECK_RC(http_do(c, &(struct http_request){.method = "GET", .url = bad[i]}, &a, &err),
                 RC_INVALID);
    }
    const struct http_options o = {.ca_file = "/nowhere/ca.pem"};
    struct http_client *other = NULL;
    CHECK_RC(http_open(&o, &other, &err), RC_NOT_FOUND);
    CHECK(!other);
}

TEST(a_password_in_an_url_is_not_told)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(reset_at_once, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    struct http_response a = {0};
    char url[128];
    (void)snprintf(url, sizeof(url), "http://me:hidden@127.0.0.1:%u/p?sig=hidden", httpd_port(s));
    CHECK_RC(http_do(c, &(struct http_request){.method = "GET", .url = url}, &a, &err),
             RC_UNAVAILABLE);
    CHECK(!strstr(err.msg, "hidden") && strstr(err.msg, "/p"));
}

/* ---- time ---- */

static void slowly(struct httpd_request *r)
{
    if (r->target[1] == 'd') { /* dribbles forever */
        httpd_sendf(r, "HTTP/1.1 200 x\r\nContent-Length: 100000\r\n\r\n");
        for (int i = 0; i < 30; i++) {
            httpd_sendf(r, "x");
            httpd_pause(100);
        }
        httpd_hang_up(r);
        return;
    }
    httpd_pause(1500); /* no answer */
    httpd_reply(r, 200, NULL, "late", 4);
}

TEST(what_stands_still_or_dribbles_is_given_up)
{
    struct err err = ERR_INIT;
    static const char *const paths[] = {"/dribble", "/silent"};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        CLEANUP(httpd_stopp) struct httpd *s = httpd_start(slowly, NULL);
        CLEANUP(http_closep) struct http_client *c = client();
        struct http_response a = {0};
        struct http_request r = {.method = "GET", .url = at(s, paths[i]), .repeat = HTTP_REPEAT_NO};
        CHECK_RC(http_do(c, &r, &a, &err), RC_UNAVAILABLE);
        CHECK(strstr(err.msg, "stands still"));
        if (i == 1) {
            r.stall_timeout_ns = 30 * CLOCK_S;
            CHECK_OK(http_do(c, &r, &a, &err));
            http_response_done(&a);
        }
    }
}

TEST(a_deadline_ends_a_transfer_and_a_pause)
{
    struct err err = ERR_INIT;
    CLEANUP(http_closep) struct http_client *c = client();
    struct http_response a = {0};
    CLEANUP(httpd_stopp) struct httpd *slow = httpd_start(slowly, NULL);
    CHECK_RC(http_do(c,
                     &(struct http_request){.method = "GET",
                                            .url = at(slow, "/silent"),
                                            .stall_timeout_ns = 60 * CLOCK_S,
                                            .deadline = clock_now() + 200 * CLOCK_MS},
                     &a, &err),
             RC_TIMEOUT);
    CLEANUP(httpd_stopp) struct httpd *busy = httpd_start(status_of_path, NULL);
    CLEANUP(http_closep) struct http_client *patient = NULL;
    const struct http_options o = {
        .direct = true, .backoff_min_ns = 60 * CLOCK_S, .backoff_max_ns = 60 * CLOCK_S};
    CHECK_OK(http_open(&o, &patient, &err));
    CHECK_RC(http_do(patient,
                     &(struct http_request){.method = "GET",
                                            .url = at(busy, "/503"),
                                            .deadline = clock_now() + 10 * CLOCK_S},
                     &a, &err),
             RC_TIMEOUT);
    CHECK(strstr(err.msg, "503")); /* why it had to wait */
}

static void wait_long(struct httpd_request *r)
{
    httpd_reply(r, r->number == 0 ? 429 : 200, "Retry-After: 1\r\n", NULL, 0);
}

TEST(retry_after_is_kept_within_the_limit)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(wait_long, NULL);
    CLEANUP(http_closep) struct http_client *c = NULL;
    CLEANUP(http_response_done) struct http_response a = {0};
    const struct http_options o = {.direct = true, .backoff_min_ns = CLOCK_MS};
    CHECK_OK(http_open(&o, &c, &err));
    uint64_t begin = clock_now();
    CHECK_OK(http_do(c, &(struct http_request){.method = "GET", .url = at(s, "/")}, &a, &err));
    CHECK(a.tries == 2 && clock_now() - begin >= 990 * CLOCK_MS);
}

static void *cancel_soon(void *arg)
{
    httpd_pause(100);
    atomic_store((atomic_bool *)arg, true);
    return NULL;
}

TEST(a_request_can_be_cancelled)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(slowly, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    struct http_response a = {0};
    atomic_bool cancel = false;
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, cancel_soon, &cancel) == 0);
    CHECK_RC(http_do(c,
                     &(struct http_request){.method = "GET",
                                            .url = at(s, "/silent"),
                                            .stall_timeout_ns = 60 * CLOCK_S,
                                            .cancel = &cancel},
                     &a, &err),
             RC_CANCELLED);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* ---- redirects ---- */

struct redirecting {
    char to[256];
    unsigned status;
};

static void redirect(struct httpd_request *r)
{
    const struct redirecting *d = r->arg;
    char location[512], text[64];
    if (strcmp(r->target, "/end") == 0) {
        CHECK_STR(httpd_header(r, "authorization", text, sizeof(text)), "secret");
        httpd_reply(r, 200, NULL, "home", 4);
        return;
    }
    (void)snprintf(location, sizeof(location), "Location: %s\r\n", d->to);
    httpd_reply(r, d->status, location, NULL, 0);
}

static void elsewhere(struct httpd_request *r)
{
    static const char *const secrets[] = {"authorization", "cookie", "x-fresh"};
    char text[64];
    for (size_t i = 0; i < ARRAY_LEN(secrets); i++)
        CHECK_STR(httpd_header(r, secrets[i], text, sizeof(text)), "");
    CHECK_STR(httpd_header(r, "accept", text, sizeof(text)), "text/x");
    httpd_reply(r, 200, NULL, "abroad", 6);
}

TEST(redirects_are_followed_when_asked_for_and_credentials_stay_home)
{
    struct err err = ERR_INIT;
    struct redirecting d = {.status = 307};
    CLEANUP(httpd_stopp) struct httpd *home = httpd_start(redirect, &d);
    CLEANUP(httpd_stopp) struct httpd *abroad = httpd_start(elsewhere, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    CLEANUP(http_response_done) struct http_response a = {0}, b = {0}, none = {0}, post = {0};
    const char *const headers[] = {"Authorization: secret", "Cookie: secret", "Accept: text/x"};
    unsigned fresh = 0;
    char url[64];
    (void)snprintf(url, sizeof(url), "%s/begin", httpd_url(home));
    struct http_request r = {.method = "GET",
                             .url = url,
                             .headers = headers,
                             .n_headers = 3,
                             .prepare = freshen,
                             .prepare_arg = &fresh};
    (void)snprintf(d.to, sizeof(d.to), "/end");
    CHECK_OK(http_do(c, &r, &none, &err));
    CHECK_INT(none.status, 307);
    r.redirects = 3;
    CHECK_OK(http_do(c, &r, &a, &err));
    CHECK_STR(buf_str(&a.body), "home");
    (void)snprintf(d.to, sizeof(d.to), "%s/x?token", httpd_url(abroad));
    CHECK_OK(http_do(c, &r, &b, &err));
    CHECK_STR(buf_str(&b.body), "abroad");
    r.method = "POST";
    CHECK_OK(http_do(c, &r, &post, &err));
    CHECK_INT(post.status, 307);
}

TEST(a_redirect_in_a_circle_ends_and_one_to_a_file_is_refused)
{
    struct err err = ERR_INIT;
    struct redirecting d = {.status = 302, .to = "/again"};
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(redirect, &d);
    CLEANUP(http_closep) struct http_client *c = client();
    CLEANUP(http_response_done) struct http_response a = {0};
    struct http_request r = {.method = "GET", .url = at(s, "/"), .redirects = 4};
    CHECK_OK(http_do(c, &r, &a, &err));
    CHECK(a.status == 302 && a.tries == 5);
    (void)snprintf(d.to, sizeof(d.to), "file:///etc/passwd");
    struct http_response none;
    CHECK_RC(http_do(c, &r, &none, &err), RC_DENIED);
}

/* ---- sharing ---- */

static void fast(struct httpd_request *r)
{
    static char body[4 * 65536];
    httpd_reply(r, 200, NULL, body, sizeof(body));
}

struct worker {
    struct http_client *c;
    const char *url;
    unsigned good;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct err err = ERR_INIT;
    for (int i = 0; i < 10; i++) {
        CLEANUP(http_response_done) struct http_response a = {0};
        struct http_request r = {.method = "GET", .url = w->url};
        w->good += !http_do(w->c, &r, &a, &err) && a.body.len == (size_t)4 * 65536;
    }
    return NULL;
}

TEST(many_threads_share_a_client)
{
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(fast, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    struct worker w[8];
    pthread_t threads[ARRAY_LEN(w)];
    char url[64];
    (void)snprintf(url, sizeof(url), "%s/", httpd_url(s));
    for (size_t i = 0; i < ARRAY_LEN(w); i++) {
        w[i] = (struct worker){c, url, 0};
        CHECK(pthread_create(&threads[i], NULL, work, &w[i]) == 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(w); i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK_INT(w[i].good, 10);
    }
    CHECK(httpd_connections(s) <= ARRAY_LEN(w));
}

TEST(bandwidth_is_limited_for_all_together)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(fast, NULL);
    CLEANUP(http_closep) struct http_client *c = NULL;
    const struct http_options o = {
        .direct = true, .bytes_per_second = 5 << 20, .stall_timeout_ns = 100 * CLOCK_MS};
    CHECK_OK(http_open(&o, &c, &err));
    struct worker w[2];
    pthread_t threads[ARRAY_LEN(w)];
    char url[64];
    (void)snprintf(url, sizeof(url), "%s/", httpd_url(s));
    uint64_t begin = clock_now();
    for (size_t i = 0; i < ARRAY_LEN(w); i++) {
        w[i] = (struct worker){c, url, 0};
        CHECK(pthread_create(&threads[i], NULL, work, &w[i]) == 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(w); i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK_INT(w[i].good, 10);
    }
    CHECK(clock_now() - begin >= 900 * CLOCK_MS); /* 5 MiB at 5 MiB/s, less the burst */
}

TEST(a_closed_connection_raises_no_signal)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(reset_at_once, NULL);
    CLEANUP(http_closep) struct http_client *c = client();
    struct http_response a = {0};
    char *body = pattern(BIG);
    CHECK_RC(http_do(c,
                     &(struct http_request){
                         .method = "PUT", .url = at(s, "/"), .body = body, .body_len = BIG},
                     &a, &err),
             RC_UNAVAILABLE);
    sigset_t set;
    CHECK(sigpending(&set) == 0 && !sigismember(&set, SIGPIPE));
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &set) == 0 && !sigismember(&set, SIGPIPE));
    free(body);
}

TEST(names_are_escaped)
{
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    http_escape("a/b c+d~e%\xc3\xa9", "/", &out);
    CHECK_STR(buf_str(&out), "a/b%20c%2Bd~e%25%C3%A9");
    buf_cut(&out, 0);
    http_escape("a/b", "", &out);
    CHECK_STR(buf_str(&out), "a%2Fb");
}

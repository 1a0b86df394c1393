#include "base/clock.h"
#include "base/compiler.h"
#include "net/transfer_priv.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define STALL_BYTES 1024
#define BURST_NS (50 * CLOCK_MS) /* bandwidth that may be used ahead of its time */

/* ---- callbacks ---- */

static bool is_good(const struct http_try *t)
{
    return t->status >= 200 && t->status <= 299;
}

/* Wait until the client's bandwidth allows what has just moved; does not count as a stall. */
static void throttle(struct http_try *t, size_t bytes)
{
    struct http_client *c = t->c;
    if (c->o.bytes_per_second == 0)
        return;
    uint64_t now = clock_now();
    (void)pthread_mutex_lock(&c->lock);
    if (c->free_at < now)
        c->free_at = now;
    c->free_at += (uint64_t)((double)bytes / (double)c->o.bytes_per_second * 1e9);
    uint64_t until = c->free_at;
    (void)pthread_mutex_unlock(&c->lock);
    if (until > now + BURST_NS) {
        uint64_t wait = until - now - BURST_NS;
        struct timespec pause = {(time_t)(wait / CLOCK_S), (long)(wait % CLOCK_S)};
        (void)nanosleep(&pause, NULL);
        t->window_begin += wait;
    }
}

/* A body that begins in the middle must begin where we asked. */
static enum rc check_range(struct http_try *t)
{
    uint64_t from = 0, to = 0, want = t->received + (t->r->range ? t->r->range_offset : 0);
    const struct http_response view = {.headers = t->headers};
    const char *text = http_header(&view, "content-range");
    if (t->status == 206 && text && sscanf(text, "bytes %" SCNu64 "-%" SCNu64, &from, &to) == 2 &&
        from == want && to >= from && to < UINT64_MAX) {
        t->promised = to + 1 - (t->r->range ? t->r->range_offset : 0);
        return RC_OK;
    }
    if (t->status != 206 && !t->r->range) {
        t->skip = t->received; /* all of it again: drop what we have */
        return RC_OK;
    }
    t->odd = true;
    return err_set(t->err, RC_CORRUPT, "%s was asked for, the answer is %u %.60s", t->range,
                   t->status, text ? text : "without a range");
}

static enum rc judge(struct http_try *t)
{
    long status = 0;
    t->judged = true;
    (void)curl_easy_getinfo(t->h, CURLINFO_RESPONSE_CODE, &status);
    t->status = (unsigned)status;
    return is_good(t) && t->range[0] ? check_range(t) : RC_OK;
}

/* How long the body is to be; UINT64_MAX when nobody knows. */
static uint64_t wanted(const struct http_request *r)
{
    return r->into ? r->into_len : r->range ? r->range_len : UINT64_MAX;
}

static enum rc take(struct http_try *t, const char *data, size_t len)
{
    const struct http_request *r = t->r;
    if (len > wanted(r) - t->received) {
        t->odd = true;
        return err_set(t->err, RC_CORRUPT, "the answer has more than %ju bytes",
                       (uintmax_t)wanted(r));
    }
    if (r->into) {
        memcpy((char *)r->into + t->received, data, len);
    } else if (r->sink) {
        enum rc rc = r->sink(r->sink_arg, data, len, t->err);
        if (rc)
            return rc;
    } else {
        buf_add(&t->body, data, len);
        if (t->body.overflowed)
            return err_set(t->err, RC_TOO_BIG, "the answer has more than %zu bytes",
                           buf_max(&t->body));
    }
    t->received += len;
    return RC_OK;
}

/* Acknowledge at once what has come.  A server that has not turned Nagle's algorithm off, such as
 * Ceph's gateway, holds the end of an answer back until we do, and the kernel would wait 40 ms. */
static void acknowledge(const struct http_try *t)
{
    curl_socket_t fd = CURL_SOCKET_BAD;
    int on = 1;
    if (curl_easy_getinfo(t->h, CURLINFO_ACTIVESOCKET, &fd) == CURLE_OK && fd != CURL_SOCKET_BAD)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on)); /* else it is slower */
}

static size_t on_body(char *data, size_t one, size_t len, void *arg)
{
    struct http_try *t = arg;
    (void)one;
    acknowledge(t);
    if (!t->judged && (t->failed = judge(t)))
        return 0;
    throttle(t, len);
    if (!is_good(t)) {
        size_t room = buf_max(&t->problem) - t->problem.len;
        buf_add(&t->problem, data, len < room ? len : room);
        return len;
    }
    size_t drop = len < t->skip ? len : (size_t)t->skip;
    t->skip -= drop;
    t->failed = len > drop ? take(t, data + drop, len - drop) : RC_OK;
    return t->failed ? 0 : len;
}

/* The end of a head; interim ones are nobody's. */
static enum rc tell_head(struct http_try *t)
{
    long status = 0;
    (void)curl_easy_getinfo(t->h, CURLINFO_RESPONSE_CODE, &status);
    return t->r->head && status >= 200 ? t->r->head(t->r->head_arg, (unsigned)status, t->err)
                                       : RC_OK;
}

static size_t on_header(char *line, size_t one, size_t len, void *arg)
{
    struct http_try *t = arg;
    (void)one;
    if (len >= 5 && strncmp(line, "HTTP/", 5) == 0) {
        buf_cut(&t->headers, 0); /* of an interim answer */
        return len;
    }
    if (len == 2 && memcmp(line, "\r\n", 2) == 0) {
        t->failed = tell_head(t);
        return t->failed ? 0 : len;
    }
    const char *colon = memchr(line, ':', len);
    if (!colon)
        return len;
    const char *end = line + len, *value = colon + 1;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' '))
        end--;
    buf_add(&t->headers, line, (size_t)(colon - line));
    buf_add(&t->headers, "", 1);
    buf_add(&t->headers, value, (size_t)(end - value));
    buf_add(&t->headers, "", 1);
    if (t->headers.overflowed)
        t->failed = err_set(t->err, RC_TOO_BIG, "the answer's header is too long");
    return t->failed ? 0 : len;
}

static size_t on_send(char *data, size_t one, size_t len, void *arg)
{
    struct http_try *t = arg;
    const struct http_request *r = t->r;
    size_t n = one * len;
    if (n > r->body_len - t->sent)
        n = (size_t)(r->body_len - t->sent);
    if (n == 0)
        return 0;
    if (r->source)
        t->failed = r->source(r->source_arg, t->sent, data, n, &n, t->err);
    else
        memcpy(data, (const char *)r->body + t->sent, n);
    if (t->failed)
        return CURL_READFUNC_ABORT;
    t->sent += n;
    throttle(t, n);
    return n;
}

static int on_seek(void *arg, curl_off_t offset, int origin)
{
    struct http_try *t = arg;
    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > t->r->body_len)
        return CURL_SEEKFUNC_FAIL;
    t->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* Called at least once a second. */
static int on_progress(void *arg, curl_off_t dt, curl_off_t down, curl_off_t ut, curl_off_t up)
{
    struct http_try *t = arg;
    (void)dt, (void)ut;
    uint64_t now = clock_now(), moved = (uint64_t)down + (uint64_t)up;
    uint64_t limit = t->r->stall_timeout_ns ? t->r->stall_timeout_ns : t->c->o.stall_timeout_ns;
    if (t->r->cancel && atomic_load(t->r->cancel))
        t->failed = err_set(t->err, RC_CANCELLED, "cancelled");
    else if (moved - t->window_bytes >= STALL_BYTES) {
        t->window_begin = now;
        t->window_bytes = moved;
    } else if (now > t->window_begin && now - t->window_begin > limit)
        t->stalled = true;
    return t->failed || t->stalled;
}

/* No program that we start inherits a connection. */
static curl_socket_t on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
    (void)arg, (void)purpose;
    int fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
    return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* ---- one try ---- */

static void set_body(struct http_try *t)
{
    const struct http_request *r = t->r;
    if (strcmp(r->method, "HEAD") == 0)
        (void)curl_easy_setopt(t->h, CURLOPT_NOBODY, 1L);
    if (r->body_len > 0 || r->has_body) {
        (void)curl_easy_setopt(t->h, CURLOPT_UPLOAD, 1L);
        (void)curl_easy_setopt(t->h, CURLOPT_INFILESIZE_LARGE, (curl_off_t)r->body_len);
        (void)curl_easy_setopt(t->h, CURLOPT_READFUNCTION, on_send);
        (void)curl_easy_setopt(t->h, CURLOPT_READDATA, t);
        (void)curl_easy_setopt(t->h, CURLOPT_SEEKFUNCTION, on_seek);
        (void)curl_easy_setopt(t->h, CURLOPT_SEEKDATA, t);
    }
    (void)curl_easy_setopt(t->h, CURLOPT_CUSTOMREQUEST, r->method);
    if (t->range[0])
        (void)curl_easy_setopt(t->h, CURLOPT_RANGE, t->range + strlen("bytes="));
}

bool transfer_may_repeat(const struct http_request *r)
{
    static const char *const safe[] = {"GET", "HEAD", "PUT", "DELETE"};
    for (size_t i = 0; r->repeat == HTTP_REPEAT_BY_METHOD && i < ARRAY_LEN(safe); i++)
        if (strcmp(r->method, safe[i]) == 0)
            return true;
    return r->repeat == HTTP_REPEAT_YES;
}

/* The text is the client's, which outlives the transfer. */
static void set_pem(CURL *h, CURLoption option, const char *pem)
{
    struct curl_blob blob = {.data = (void *)(uintptr_t)pem, .len = strlen(pem)};
    (void)curl_easy_setopt(h, option, &blob);
}

static void set_trust(CURL *h, const struct http_options *o)
{
    if (o->ca_file)
        (void)curl_easy_setopt(h, CURLOPT_CAINFO, o->ca_file);
    else if (o->ca_pem)
        set_pem(h, CURLOPT_CAINFO_BLOB, o->ca_pem);
    if (o->ca_file || o->ca_pem)
        (void)curl_easy_setopt(h, CURLOPT_CAPATH, NULL);
    if (o->any_certificate) {
        (void)curl_easy_setopt(h, CURLOPT_SSL_VERIFYPEER, 0L);
        (void)curl_easy_setopt(h, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (o->cert_pem && o->key_pem) {
        set_pem(h, CURLOPT_SSLCERT_BLOB, o->cert_pem);
        set_pem(h, CURLOPT_SSLKEY_BLOB, o->key_pem);
    }
}

static void set_protocol(CURL *h, const struct http_options *o)
{
    (void)curl_easy_setopt(h, CURLOPT_HTTP_VERSION,
                           o->h2c ? (long)CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE
                                  : (long)CURL_HTTP_VERSION_1_1);
    /* FIXME(libcurl < 8.0): the second request on such a connection fails with CURLE_HTTP2. */
    if (o->h2c && curl_version_info(CURLVERSION_NOW)->version_num < 0x080000)
        (void)curl_easy_setopt(h, CURLOPT_FORBID_REUSE, 1L);
}

static void set_up(struct http_try *t)
{
    const struct http_options *o = &t->c->o;
    CURL *h = t->h;
    curl_easy_reset(h);
    (void)curl_easy_setopt(h, CURLOPT_URL, t->url);
    (void)curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
    set_protocol(h, o);
    (void)curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(h, CURLOPT_ERRORBUFFER, t->said);
    (void)curl_easy_setopt(h, CURLOPT_USERAGENT, o->user_agent);
    (void)curl_easy_setopt(h, CURLOPT_HTTPHEADER, t->fields);
    (void)curl_easy_setopt(h, CURLOPT_BUFFERSIZE, 256L << 10);
    (void)curl_easy_setopt(h, CURLOPT_UPLOAD_BUFFERSIZE, 256L << 10);
    (void)curl_easy_setopt(h, CURLOPT_TCP_KEEPALIVE, 1L);
    (void)curl_easy_setopt(h, CURLOPT_PATH_AS_IS, 1L);
    (void)curl_easy_setopt(h, CURLOPT_OPENSOCKETFUNCTION, on_socket);
    (void)curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, (long)(o->connect_timeout_ns / CLOCK_MS));
    (void)curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(h, CURLOPT_WRITEDATA, t);
    (void)curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(h, CURLOPT_HEADERDATA, t);
    (void)curl_easy_setopt(h, CURLOPT_XFERINFOFUNCTION, on_progress);
    (void)curl_easy_setopt(h, CURLOPT_XFERINFODATA, t);
    (void)curl_easy_setopt(h, CURLOPT_NOPROGRESS, 0L);
    set_trust(h, o);
    if (o->unix_socket)
        (void)curl_easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, o->unix_socket);
    if (!transfer_may_repeat(t->r)) /* libcurl repeats what a connection's end has swallowed */
        (void)curl_easy_setopt(h, CURLOPT_FRESH_CONNECT, 1L);
    if (o->direct)
        (void)curl_easy_setopt(h, CURLOPT_PROXY, "");
    if (t->r->deadline) {
        int left = clock_poll_ms(t->r->deadline);
        (void)curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, left > 0 ? (long)left : 1L);
    }
    set_body(t);
}

/* OpenSSL may raise SIGPIPE, which must not end a program that only wanted to read a file. */
static CURLcode perform(CURL *h)
{
    sigset_t pipe, old, pending;
    (void)sigemptyset(&pipe);
    (void)sigaddset(&pipe, SIGPIPE);
    (void)sigpending(&pending);
    bool was_pending = sigismember(&pending, SIGPIPE) == 1;
    (void)pthread_sigmask(SIG_BLOCK, &pipe, &old);
    CURLcode code = curl_easy_perform(h);
    (void)sigpending(&pending);
    if (!was_pending && sigismember(&pending, SIGPIPE) == 1) {
        const struct timespec now = {0, 0};
        (void)sigtimedwait(&pipe, NULL, &now);
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return code;
}

static enum try_end fail(struct http_try *t, enum try_end end, enum rc rc, enum rc *out_rc,
                         const char *what)
{
    *out_rc = err_set(t->err, rc, "%s", what);
    return end;
}

/* An answer has ended as libcurl expects it; whether as we do. */
static enum try_end check_length(struct http_try *t, enum rc *out_rc)
{
    const struct http_request *r = t->r;
    uint64_t want = wanted(r);
    if (r->range_short && t->promised < want)
        want = t->promised;
    if (!is_good(t) || strcmp(r->method, "HEAD") == 0 || want == UINT64_MAX || t->received == want)
        return TRY_ANSWERED;
    *out_rc = err_set(t->err, RC_CORRUPT, "the answer ends after %ju of %ju bytes",
                      (uintmax_t)t->received, (uintmax_t)want);
    return TRY_BROKEN;
}

enum try_end transfer(struct http_try *t, enum rc *out_rc)
{
    buf_cut(&t->headers, 0);
    buf_cut(&t->problem, 0);
    t->headers.max = HTTP_HEADERS_MAX;
    t->skip = t->sent = t->window_bytes = 0;
    t->status = 0;
    t->said[0] = '\0';
    t->judged = t->stalled = t->odd = false;
    t->failed = RC_OK;
    t->window_begin = clock_now();
    set_up(t);
    CURLcode code = perform(t->h);
    if (code == CURLE_OK && !t->judged)
        t->failed = judge(t);
    if (t->failed) {
        *out_rc = t->failed;
        return t->odd ? TRY_BROKEN : TRY_FATAL;
    }
    const char *said = t->said[0] ? t->said : curl_easy_strerror(code);
    if (t->stalled)
        return fail(t, TRY_BROKEN, RC_UNAVAILABLE, out_rc, "the transfer stands still");
    if (code == CURLE_OPERATION_TIMEDOUT && t->r->deadline && clock_now() >= t->r->deadline)
        return fail(t, TRY_FATAL, RC_TIMEOUT, out_rc, "not done in the time that it was given");
    switch ((int)code) {
    case CURLE_OK:
        return check_length(t, out_rc);
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
        return fail(t, TRY_UNSENT, RC_UNAVAILABLE, out_rc, said);
    case CURLE_UNSUPPORTED_PROTOCOL: /* the scheme was looked at before: no HTTP came back */
    case CURLE_WEIRD_SERVER_REPLY:
        return fail(t, TRY_BROKEN, RC_CORRUPT, out_rc, said);
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return fail(t, TRY_BROKEN, RC_UNAVAILABLE, out_rc, said);
    case CURLE_PEER_FAILED_VERIFICATION:
        return fail(t, TRY_FATAL, RC_DENIED, out_rc, said);
    case CURLE_URL_MALFORMAT:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
        return fail(t, TRY_FATAL, RC_INVALID, out_rc, said);
    default:
        return fail(t, TRY_FATAL, RC_IO, out_rc, said);
    }
}

void transfer_name(const struct http_request *r, const char *url, struct buf *out)
{
    size_t n = strcspn(url, "?#");
    const char *scheme = strstr(url, "://");
    const char *host = scheme ? scheme + 3 : url;
    const char *slash = strpbrk(host, "/?#");
    const char *at = memchr(host, '@', slash ? (size_t)(slash - host) : strlen(host));
    buf_addf(out, "%s ", r->method);
    if (at && (size_t)(at - url) < n) { /* user:password@ */
        buf_add(out, url, (size_t)(host - url));
        buf_add(out, at + 1, n - (size_t)(at + 1 - url));
    } else {
        buf_add(out, url, n);
    }
}

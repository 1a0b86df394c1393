#include "net/http.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/rand.h"
#include "net/transfer_priv.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define PROGRESS_BYTES ((uint64_t)64 << 10) /* so much more than before: the tries count anew */
#define NAP_NS (100 * CLOCK_MS)             /* between looks at `cancel` */

/* ---- client ---- */

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void curl_start(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

static uint64_t or_default(uint64_t value, uint64_t fallback)
{
    return value ? value : fallback;
}

enum rc http_open(const struct http_options *options, struct http_client **out, struct err *err)
{
    const struct http_options none = {.ca_file = NULL};
    const struct http_options *o = options ? options : &none;
    if (o->ca_file && faccessat(AT_FDCWD, o->ca_file, R_OK, 0) < 0)
        return err_sys(err, "certificates '%s'", o->ca_file);
    (void)pthread_once(&curl_once, curl_start);
    struct http_client *c = mem_zalloc(sizeof(*c));
    c->o = *o;
    c->o.ca_file = mem_strdup(o->ca_file);
    c->o.ca_pem = mem_strdup(o->ca_pem);
    c->o.cert_pem = mem_strdup(o->cert_pem);
    c->o.key_pem = mem_strdup(o->key_pem);
    c->o.unix_socket = mem_strdup(o->unix_socket);
    c->o.user_agent = mem_strdup(o->user_agent ? o->user_agent : "chrek/" CHREK_VERSION);
    c->o.connect_timeout_ns = or_default(o->connect_timeout_ns, 10 * CLOCK_S);
    c->o.stall_timeout_ns = or_default(o->stall_timeout_ns, 30 * CLOCK_S);
    c->o.tries = o->tries ? o->tries : 6;
    c->o.backoff_min_ns = or_default(o->backoff_min_ns, 200 * CLOCK_MS);
    c->o.backoff_max_ns = or_default(o->backoff_max_ns, 20 * CLOCK_S);
    (void)pthread_mutex_init(&c->lock, NULL);
    *out = c;
    return RC_OK;
}

static void free_text(const char *text)
{
    free((void *)(uintptr_t)text);
}

void http_closep(struct http_client **client)
{
    struct http_client *c = STEAL(*client);
    if (!c)
        return;
    while (c->n_idle > 0)
        curl_easy_cleanup(c->idle[--c->n_idle]);
    if (c->o.key_pem)
        explicit_bzero((void *)(uintptr_t)c->o.key_pem, strlen(c->o.key_pem));
    free_text(c->o.ca_file);
    free_text(c->o.ca_pem);
    free_text(c->o.cert_pem);
    free_text(c->o.key_pem);
    free_text(c->o.unix_socket);
    free_text(c->o.user_agent);
    (void)pthread_mutex_destroy(&c->lock);
    free(c);
}

void http_after_fork(struct http_client *c)
{
    (void)pthread_mutex_init(&c->lock, NULL);
    /* To close them properly would be to say good-bye in the parent's name, and their descriptors
     * may be closed, or others, by now: they are forgotten. */
    c->n_idle = 0;
}

static CURL *take_handle(struct http_client *c)
{
    (void)pthread_mutex_lock(&c->lock);
    CURL *h = c->n_idle > 0 ? c->idle[--c->n_idle] : NULL;
    (void)pthread_mutex_unlock(&c->lock);
    return h ? h : curl_easy_init();
}

static void give_handle(struct http_client *c, CURL *h)
{
    (void)pthread_mutex_lock(&c->lock);
    bool kept = h && c->n_idle < HTTP_IDLE_MAX;
    if (kept)
        c->idle[c->n_idle++] = h;
    (void)pthread_mutex_unlock(&c->lock);
    if (!kept && h)
        curl_easy_cleanup(h);
}

/* ---- redirects ---- */

static bool same_origin(const char *a, const char *b)
{
    static const CURLUPart parts[] = {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT};
    CURLU *u = curl_url(), *v = curl_url();
    bool same =
        u && v && !curl_url_set(u, CURLUPART_URL, a, 0) && !curl_url_set(v, CURLUPART_URL, b, 0);
    for (size_t i = 0; same && i < ARRAY_LEN(parts); i++) {
        char *x = NULL, *y = NULL;
        same = !curl_url_get(u, parts[i], &x, CURLU_DEFAULT_PORT) &&
               !curl_url_get(v, parts[i], &y, CURLU_DEFAULT_PORT) && strcasecmp(x, y) == 0;
        curl_free(x);
        curl_free(y);
    }
    curl_url_cleanup(u);
    curl_url_cleanup(v);
    return same;
}

static bool is_http(const char *url)
{
    return strncasecmp(url, "http://", 7) == 0 || strncasecmp(url, "https://", 8) == 0;
}

/* Where an answer sends us, the caller's (free); NULL when it does not, or we do not go. */
static enum rc redirected(struct http_try *t, unsigned left, char **out)
{
    char *to = NULL;
    bool reads = strcmp(t->r->method, "GET") == 0 || strcmp(t->r->method, "HEAD") == 0;
    if (left == 0 || !reads || t->status < 301 || t->status > 308 || t->status == 304 ||
        curl_easy_getinfo(t->h, CURLINFO_REDIRECT_URL, &to) != CURLE_OK || !to)
        return RC_OK;
    if (!is_http(to))
        return err_set(t->err, RC_DENIED, "it redirects to what is neither http nor https");
    if (strncasecmp(t->url, "https:", 6) == 0 && strncasecmp(to, "https:", 6) != 0)
        return err_set(t->err, RC_DENIED, "it redirects from https to http");
    *out = mem_strdup(to);
    return RC_OK;
}

/* ---- one request ---- */

static bool is_credential(const char *header)
{
    static const char *const names[] = {"authorization:", "proxy-authorization:", "cookie:"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strncasecmp(header, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

static void add_field(struct http_try *t, const char *text)
{
    struct curl_slist *more = curl_slist_append(t->fields, text);
    if (!more)
        abort(); /* as mem_alloc() */
    t->fields = more;
}

void http_try_header(struct http_try *t, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        abort();
    va_end(ap);
    add_field(t, text);
    free(text);
}

const char *http_try_range(const struct http_try *t)
{
    return t->range;
}

/* What is still to come of the body. */
static void set_range(struct http_try *t)
{
    const struct http_request *r = t->r;
    t->range[0] = '\0';
    if (r->range)
        (void)snprintf(t->range, sizeof(t->range), "bytes=%ju-%ju",
                       (uintmax_t)(r->range_offset + t->received),
                       (uintmax_t)(r->range_offset + r->range_len - 1));
    else if (t->received > 0)
        (void)snprintf(t->range, sizeof(t->range), "bytes=%ju-", (uintmax_t)t->received);
}

static enum rc set_fields(struct http_try *t)
{
    const struct http_request *r = t->r;
    bool home = t->url == r->url || same_origin(r->url, t->url);
    curl_slist_free_all(STEAL(t->fields));
    set_range(t);
    add_field(t, "Expect:"); /* costs a second where a server does not know it */
    for (size_t i = 0; i < r->n_headers; i++)
        if (home || !is_credential(r->headers[i]))
            add_field(t, r->headers[i]);
    return home && r->prepare ? r->prepare(r->prepare_arg, t, t->err) : RC_OK;
}

static bool is_transient(unsigned status)
{
    return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 ||
           status == 504;
}

/* Wait before the next try; the pause is spread so that many clients do not come back at once.
 * errors RC_TIMEOUT (it would last past the deadline), RC_CANCELLED */
static enum rc back_off(struct http_try *t, unsigned tries)
{
    const struct http_options *o = &t->c->o;
    uint64_t cap = o->backoff_min_ns, chance;
    curl_off_t wish = 0; /* Retry-After, seconds */
    for (unsigned i = 1; i < tries && cap < o->backoff_max_ns; i++)
        cap *= 2;
    rand_bytes(&chance, sizeof(chance));
    uint64_t wait = cap / 2 + chance % (cap / 2 + 1);
    if (t->status && curl_easy_getinfo(t->h, CURLINFO_RETRY_AFTER, &wish) == CURLE_OK && wish > 0 &&
        (uint64_t)wish < UINT32_MAX && (uint64_t)wish * CLOCK_S > wait)
        wait = (uint64_t)wish * CLOCK_S;
    if (wait > o->backoff_max_ns)
        wait = o->backoff_max_ns;
    uint64_t end = clock_now() + wait;
    if (t->r->deadline && end >= t->r->deadline)
        return RC_TIMEOUT;
    for (uint64_t now; (now = clock_now()) < end;) {
        if (t->r->cancel && atomic_load(t->r->cancel))
            return RC_CANCELLED;
        uint64_t nap = end - now < NAP_NS ? end - now : NAP_NS;
        struct timespec pause = {0, (long)nap};
        (void)nanosleep(&pause, NULL);
    }
    return RC_OK;
}

/* Give up for a reason of our own: keep what the last try said. */
static enum rc give_up(struct err *err, enum rc rc, const char *why)
{
    const struct err last = err ? *err : (struct err)ERR_INIT;
    return err_set(err, rc, "%s, after: %.300s", why, last.msg);
}

/* Whether an answer is one that another try may better. */
static bool wants_again(const struct http_try *t)
{
    if (is_transient(t->status))
        return transfer_may_repeat(t->r);
    return t->status >= 400 && t->r->again && t->r->again(t->r->again_arg, t->status, &t->problem);
}

struct progress {
    unsigned tries; /* since there was progress */
    uint64_t received;
    unsigned redirects;
    char *moved_to; /* where a redirect sent us, or NULL */
};

/* One try and what follows from it.  *again: go on; otherwise rc is the request's. */
static enum rc step(struct http_try *t, struct progress *p, bool *again)
{
    enum rc rc = set_fields(t);
    if (rc)
        return rc;
    enum try_end end = transfer(t, &rc);
    char *to = NULL;
    if (end == TRY_ANSWERED && (rc = redirected(t, p->redirects, &to)))
        return rc;
    if (to) {
        free(p->moved_to);
        t->url = p->moved_to = to;
        p->redirects--;
        *again = true;
        return RC_OK;
    }
    if (end == TRY_FATAL || (end == TRY_ANSWERED && !wants_again(t)) ||
        (end == TRY_BROKEN && !transfer_may_repeat(t->r)))
        return rc;
    if (t->received >= p->received + PROGRESS_BYTES)
        p->tries = 0;
    p->received = t->received;
    if (++p->tries >= t->c->o.tries)
        return end == TRY_ANSWERED ? RC_OK : err_ctx(t->err, rc, "%u tries", p->tries);
    if (end == TRY_ANSWERED)
        (void)err_set(t->err, RC_UNAVAILABLE, "status %u", t->status);
    rc = back_off(t, p->tries);
    if (rc)
        return give_up(t->err, rc, rc == RC_TIMEOUT ? "no time is left" : "cancelled");
    t->url = t->r->url; /* a redirect's target may have been for once */
    p->redirects = t->r->redirects;
    *again = true;
    return RC_OK;
}

static enum rc check_request(const struct http_request *r, struct err *err)
{
    if (!is_http(r->url))
        return err_set(err, RC_INVALID, "an URL must begin with http:// or https://");
    if (r->range && (r->range_len == 0 || r->range_offset > UINT64_MAX - r->range_len ||
                     (r->into && r->into_len != r->range_len)))
        return err_set(err, RC_INVALID, "impossible range");
    return RC_OK;
}

enum rc http_do(struct http_client *c, const struct http_request *r, struct http_response *out,
                struct err *err)
{
    struct err own = ERR_INIT;
    struct http_try t = {.c = c, .r = r, .url = r->url, .err = &own};
    struct progress p = {.redirects = r->redirects};
    unsigned sent = 0;
    enum rc rc = check_request(r, &own);
    t.h = rc ? NULL : take_handle(c);
    if (!rc && !t.h)
        rc = err_set(&own, RC_IO, "no memory for a connection");
    t.body.max = t.problem.max = r->body_max ? r->body_max : (size_t)1 << 20;
    for (bool again = !rc; again; sent++) {
        again = false;
        rc = step(&t, &p, &again);
    }
    bool good = t.status >= 200 && t.status <= 299;
    if (rc) {
        CLEANUP(buf_done) struct buf name = BUF_INIT;
        transfer_name(r, r->url, &name);
        if (err)
            *err = own;
        (void)err_ctx(err, rc, "%.200s", buf_str(&name));
    } else {
        *out = (struct http_response){.status = t.status, .tries = sent, .received = t.received};
        out->headers = t.headers;
        out->body = good ? t.body : t.problem;
        t.headers = (struct buf)BUF_INIT;
        *(good ? &t.body : &t.problem) = (struct buf)BUF_INIT;
    }
    curl_slist_free_all(t.fields);
    buf_done(&t.headers);
    buf_done(&t.body);
    buf_done(&t.problem);
    free(p.moved_to);
    give_handle(c, t.h);
    return rc;
}

/* ---- answers ---- */

void http_response_done(struct http_response *r)
{
    buf_done(&r->headers);
    buf_done(&r->body);
}

const char *http_header(const struct http_response *r, const char *name)
{
    const char *p = r->headers.data, *end = p ? p + r->headers.len : p;
    while (p < end) {
        const char *value = p + strlen(p) + 1;
        if (strcasecmp(p, name) == 0)
            return value;
        p = value + strlen(value) + 1;
    }
    return NULL;
}

enum rc http_status_rc(unsigned status)
{
    if (status >= 200 && status <= 299)
        return RC_OK;
    if (is_transient(status))
        return RC_UNAVAILABLE;
    switch (status) {
    case 401:
    case 403:
        return RC_DENIED;
    case 404:
    case 410:
        return RC_NOT_FOUND;
    case 409:
        return RC_CONFLICT;
    case 412:
        return RC_EXISTS;
    case 413:
        return RC_TOO_BIG;
    case 416:
        return RC_CORRUPT;
    case 507:
        return RC_NO_SPACE;
    default:
        return RC_IO;
    }
}

void http_escape(const char *text, const char *keep, struct buf *out)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-";
    for (const char *p = text; *p; p++)
        if (strchr(plain, *p) || strchr(keep, *p))
            buf_add(out, p, 1);
        else
            buf_addf(out, "%%%02X", (unsigned char)*p);
}

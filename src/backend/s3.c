#include "backend/drivers.h"
#include "backend/remote.h"
#include "backend/s3_answer.h"
#include "backend/s3_credentials.h"
#include "backend/s3_sign.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "codec/sha256.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define PARTS_MAX 10000
#define UPLOAD_OLD                                                                                 \
    ((uint64_t)24 * 3600) /* seconds after which the writer of an upload in parts is dead */
#define FINISH_STALL (600 * CLOCK_S) /* a server may think long about thousands of parts */
#define ERROR_MAX ((size_t)64 << 10)
#define LIST_MAX ((size_t)8 << 20)

struct s3 {
    struct remote remote;
    struct s3_chain *chain;
    char *bucket, *region;
    char *base; /* URL of the bucket, without a slash at its end: its scheme, host and path */
    char *host; /* as the Host header has it */
    char *path; /* of the bucket: "" or "/bucket" */
    char *sse, *sse_key; /* server-side encryption: AES256 or aws:kms with a key's id, or NULL */
    bool tls;
};

/* A request to the bucket; texts are borrowed. */
struct call {
    struct s3 *s3;
    const char *method;
    const char *key;   /* under the prefix; NULL: the bucket itself */
    const char *name;  /* instead: the object's whole name */
    const char *query; /* escaped, sorted */
    const void *body;
    size_t body_len;
    bool has_body;
    bool encrypts;     /* the request makes an object */
    const char *token; /* to mark it, or NULL */
    bool only_new;
    struct remote_error error; /* of the answer */
    bool fresh;                /* the key was refused: another */
    bool renewed;              /* once is enough */
    char path[2 * BACKEND_KEY_MAX + 128 + 3 * 256];
    char payload[SHA256_HEX_LEN + 1];
    const char *source; /* of the key that was used */
};

/* ---- one request ---- */

/* The headers that are signed, in order of their names. */
static size_t signed_headers(const struct call *c, const struct s3_key *k, const char *date,
                             struct s3_header out[8])
{
    const struct s3 *s = c->s3;
    size_t n = 0;
    out[n++] = (struct s3_header){"host", s->host};
    out[n++] = (struct s3_header){"x-amz-content-sha256", c->payload};
    out[n++] = (struct s3_header){"x-amz-date", date};
    if (c->token)
        out[n++] = (struct s3_header){"x-amz-meta-chrek-writer", c->token};
    if (k->token)
        out[n++] = (struct s3_header){"x-amz-security-token", k->token};
    if (c->encrypts && s->sse)
        out[n++] = (struct s3_header){"x-amz-server-side-encryption", s->sse};
    if (c->encrypts && s->sse_key)
        out[n++] = (struct s3_header){"x-amz-server-side-encryption-aws-kms-key-id", s->sse_key};
    return n;
}

static enum rc sign(void *arg, struct http_try *t, struct err *err)
{
    struct call *c = arg;
    CLEANUP(s3_key_done) struct s3_key k = {.access = NULL};
    enum rc rc = s3_chain_get(c->s3->chain, c->fresh, &k, err);
    if (rc)
        return rc;
    c->fresh = false;
    c->source = k.source;
    char date[S3_DATE_LEN + 1];
    struct s3_header headers[8];
    CLEANUP(buf_done) struct buf authorization = BUF_INIT;
    s3_date(time(NULL), date);
    size_t n = signed_headers(c, &k, date, headers);
    s3_sign(&(struct s3_signing){.access = k.access,
                                 .secret = k.secret,
                                 .region = c->s3->region,
                                 .service = "s3",
                                 .date = date,
                                 .method = c->method,
                                 .path = c->path,
                                 .query = c->query ? c->query : "",
                                 .headers = headers,
                                 .n_headers = n,
                                 .payload = c->payload},
            &authorization);
    for (size_t i = 1; i < n; i++) /* host is curl's */
        http_try_header(t, "%s: %s", headers[i].name, headers[i].value);
    http_try_header(t, "Authorization: %s", buf_str(&authorization));
    return RC_OK;
}

static bool again(void *arg, unsigned status, const struct buf *body)
{
    struct call *c = arg;
    struct remote_error e;
    (void)status;
    remote_read_error(buf_str(body), body->len, &e);
    if (s3_is_expired(&e) && !c->renewed)
        return c->fresh = c->renewed = true;
    return s3_is_transient(&e);
}

static void set_payload(struct call *c)
{
    uint8_t digest[SHA256_LEN];
    if (c->s3->tls && c->body_len > 0) {
        (void)snprintf(c->payload, sizeof(c->payload), "%s", S3_UNSIGNED);
        return;
    }
    sha256_of(c->body, c->body_len, digest);
    sha256_hex(digest, c->payload);
}

/* Do it; more: what the http_request has beyond the call (ranges, where the body goes).
 * RC_OK: an answer 200..299 */
static enum rc perform(struct call *c, const struct http_request *more, struct http_response *out,
                       struct err *err)
{
    struct s3 *s = c->s3;
    struct http_response a = {0};
    struct http_request r = more ? *more : (struct http_request){.method = NULL};
    CLEANUP(buf_done) struct buf path = BUF_INIT;
    buf_adds(&path, s->path);
    if (c->key || c->name) {
        buf_adds(&path, "/");
        http_escape(c->name ? "" : s->remote.prefix, "/", &path);
        http_escape(c->name ? c->name : c->key, "/", &path);
    } else if (path.len == 0) {
        buf_adds(&path, "/");
    }
    if (path.len >= sizeof(c->path))
        return err_set(err, RC_INVALID, "the object's name is too long");
    memcpy(c->path, buf_str(&path), path.len + 1);
    set_payload(c);
    CLEANUP(mem_freep)
    char *url =
        mem_asprintf("%s%s%s%s", s->base, c->path, c->query ? "?" : "", c->query ? c->query : "");
    r.method = c->method;
    r.url = url;
    r.body = c->body;
    r.body_len = c->body_len;
    r.has_body = c->has_body;
    r.prepare = sign;
    r.prepare_arg = c;
    r.again = again;
    r.again_arg = c;
    c->source = "nowhere";
    enum rc rc = http_do(s->remote.http, &r, &a, err);
    if (rc)
        return rc;
    if (a.body.len <= ERROR_MAX) /* an error may come with status 200, after a long thought */
        remote_read_error(buf_str(&a.body), a.body.len, &c->error);
    if (http_status_rc(a.status) != RC_OK || c->error.code[0]) {
        out->status = a.status; /* some mean something to the caller */
        rc = s3_explain(&a, &c->error, s->bucket, c->source, err);
        http_response_done(&a);
        return rc;
    }
    *out = a;
    return RC_OK;
}

static void note_info(const struct http_response *a, struct remote_info *out)
{
    const char *tag = http_header(a, "etag"), *token = http_header(a, "x-amz-meta-chrek-writer");
    if (tag && strlen(tag) < sizeof(out->tag))
        memcpy(out->tag, tag, strlen(tag) + 1);
    if (token && strlen(token) < sizeof(out->token))
        memcpy(out->token, token, strlen(token) + 1);
}

/* ---- reading ---- */

static struct s3 *s3_of(struct remote *r)
{
    return (struct s3 *)r;
}

static enum rc s3_look(struct remote *r, const char *key, void *data, size_t len, size_t *out_len,
                       struct remote_info *out, struct err *err)
{
    struct call c = {.s3 = s3_of(r), .method = "GET", .key = key};
    const struct http_request more = {
        .range = true, .range_short = true, .range_len = len, .into = data, .into_len = len};
    CLEANUP(http_response_done) struct http_response a = {0};
    struct remote_info info = {0};
    enum rc rc = perform(&c, &more, &a, err);
    if (rc && a.status == 416) { /* nothing is in it: no range is in it either */
        c = (struct call){.s3 = s3_of(r), .method = "HEAD", .key = key};
        a = (struct http_response){0};
        rc = perform(&c, NULL, &a, err);
    } else if (!rc) {
        rc = remote_size(&a, &info.size, err);
    }
    if (rc)
        return rc;
    note_info(&a, &info);
    *out = info;
    *out_len = (size_t)a.received;
    return RC_OK;
}

static enum rc s3_get(struct remote *r, const char *key, const char *tag, uint64_t offset,
                      void *data, size_t len, struct err *err)
{
    struct call c = {.s3 = s3_of(r), .method = "GET", .key = key};
    CLEANUP(mem_freep) char *match = mem_asprintf("If-Match: %s", tag);
    const char *const headers[] = {match};
    const struct http_request more = {.headers = headers,
                                      .n_headers = *tag ? 1 : 0,
                                      .range = true,
                                      .range_offset = offset,
                                      .range_len = len,
                                      .into = data,
                                      .into_len = len};
    CLEANUP(http_response_done) struct http_response a = {0};
    enum rc rc = perform(&c, &more, &a, err);
    if (rc && a.status == 412)
        return err_set(err, RC_NOT_FOUND, "another object has taken its place");
    return rc;
}

/* ---- writing ---- */

/* The object is there, but perhaps it is ours: an answer was lost, and the request sent again. */
static bool is_ours(struct remote_upload *u)
{
    struct call c = {.s3 = s3_of(u->remote), .method = "HEAD", .key = u->base.key};
    CLEANUP(http_response_done) struct http_response a = {0};
    struct remote_info info = {0};
    if (perform(&c, NULL, &a, NULL) != RC_OK)
        return false;
    note_info(&a, &info);
    return strcmp(info.token, u->token) == 0;
}

static const char only_new[] = "If-None-Match: *";
static const char *const only_new_headers[] = {only_new};

static enum rc s3_put(struct remote_upload *u, const void *data, size_t len, struct err *err)
{
    struct call c = {.s3 = s3_of(u->remote),
                     .method = "PUT",
                     .key = u->base.key,
                     .body = data,
                     .body_len = len,
                     .has_body = true,
                     .encrypts = true,
                     .token = u->token};
    const struct http_request more = {
        .headers = only_new_headers, .n_headers = u->base.replace ? 0 : 1, .cancel = &u->cancel};
    CLEANUP(http_response_done) struct http_response a = {0};
    enum rc rc = perform(&c, &more, &a, err);
    return rc == RC_EXISTS && is_ours(u) ? RC_OK : rc;
}

static enum rc s3_begin(struct remote_upload *u, struct err *err)
{
    struct call c = {.s3 = s3_of(u->remote),
                     .method = "POST",
                     .key = u->base.key,
                     .query = "uploads=",
                     .has_body = true,
                     .encrypts = true,
                     .token = u->token};
    const struct http_request more = {.repeat = HTTP_REPEAT_YES, .cancel = &u->cancel};
    CLEANUP(http_response_done) struct http_response a = {0};
    char id[1024];
    enum rc rc = perform(&c, &more, &a, err);
    if (!rc)
        rc = s3_read_one(buf_str(&a.body), a.body.len, "/InitiateMultipartUploadResult/UploadId",
                         id, sizeof(id), err);
    if (rc)
        return rc;
    if (!id[0] || strlen(id) == sizeof(id) - 1)
        return err_set(err, RC_CORRUPT, "the server gives the upload no usable id");
    u->id = mem_strdup(id);
    return RC_OK;
}

static enum rc s3_put_part(struct remote_upload *u, unsigned number, const void *data, size_t len,
                           char tag[REMOTE_TAG_MAX], struct err *err)
{
    CLEANUP(buf_done) struct buf query = BUF_INIT;
    buf_addf(&query, "partNumber=%u&uploadId=", number);
    http_escape(u->id, "", &query);
    struct call c = {.s3 = s3_of(u->remote),
                     .method = "PUT",
                     .key = u->base.key,
                     .query = buf_str(&query),
                     .body = data,
                     .body_len = len};
    const struct http_request more = {.cancel = &u->cancel};
    CLEANUP(http_response_done) struct http_response a = {0};
    struct remote_info info = {0};
    enum rc rc = perform(&c, &more, &a, err);
    if (rc)
        return rc == RC_NOT_FOUND ? err_set(err, RC_CONFLICT, "the upload was ended by another")
                                  : rc;
    note_info(&a, &info);
    if (!info.tag[0])
        return err_set(err, RC_CORRUPT, "the server gives part %u no ETag", number);
    memcpy(tag, info.tag, sizeof(info.tag));
    return RC_OK;
}

static void add_text(struct buf *out, const char *text)
{
    for (; *text; text++)
        if (strchr("&<>\"'", *text))
            buf_addf(out, "&#%d;", *text);
        else
            buf_add(out, text, 1);
}

static bool is_there(struct remote_upload *u)
{
    struct call c = {.s3 = s3_of(u->remote), .method = "HEAD", .key = u->base.key};
    CLEANUP(http_response_done) struct http_response a = {0};
    return perform(&c, NULL, &a, NULL) == RC_OK;
}

static enum rc s3_finish(struct remote_upload *u, struct err *err)
{
    CLEANUP(buf_done) struct buf query = BUF_INIT;
    CLEANUP(buf_done) struct buf body = BUF_INIT;
    CLEANUP(http_response_done) struct http_response a = {0};
    if (!u->base.replace && is_there(u)) /* not every server knows If-None-Match here */
        return err_set(err, RC_EXISTS, "it is there already");
    buf_adds(&query, "uploadId=");
    http_escape(u->id, "", &query);
    buf_adds(&body, "<CompleteMultipartUpload>");
    for (unsigned i = 0; i < u->n_parts; i++) {
        buf_addf(&body, "<Part><PartNumber>%u</PartNumber><ETag>", i + 1);
        add_text(&body, u->tags[i]);
        buf_adds(&body, "</ETag></Part>");
    }
    buf_adds(&body, "</CompleteMultipartUpload>");
    struct call c = {.s3 = s3_of(u->remote),
                     .method = "POST",
                     .key = u->base.key,
                     .query = buf_str(&query),
                     .body = buf_str(&body),
                     .body_len = body.len};
    const struct http_request more = {.headers = only_new_headers,
                                      .n_headers = u->base.replace ? 0 : 1,
                                      .repeat = HTTP_REPEAT_YES,
                                      .stall_timeout_ns = FINISH_STALL};
    enum rc rc = perform(&c, &more, &a, err);
    if ((rc == RC_NOT_FOUND || rc == RC_EXISTS) && is_ours(u))
        return RC_OK;
    if (strcmp(c.error.code, "InvalidPart") == 0)
        return err_set(err, RC_CORRUPT, "the server has other parts than it confirmed");
    return rc == RC_NOT_FOUND ? err_set(err, RC_CONFLICT, "the upload was ended by another") : rc;
}

static void abandon(struct s3 *s, const char *name, const char *key, const char *id)
{
    CLEANUP(buf_done) struct buf query = BUF_INIT;
    CLEANUP(http_response_done) struct http_response a = {0};
    buf_adds(&query, "uploadId=");
    http_escape(id, "", &query);
    struct call c = {
        .s3 = s, .method = "DELETE", .key = key, .name = name, .query = buf_str(&query)};
    const struct http_request more = {.deadline = clock_now() + 10 * CLOCK_S};
    (void)!perform(&c, &more, &a, NULL); /* if it fails, a sweep will find it */
}

static void s3_abandon(struct remote_upload *u)
{
    abandon(s3_of(u->remote), NULL, u->base.key, u->id);
}

/* ---- the rest ---- */

static enum rc s3_list(struct remote *r, const char *prefix, struct buf *marker, struct buf *listed,
                       struct err *err)
{
    CLEANUP(buf_done) struct buf query = BUF_INIT;
    CLEANUP(http_response_done) struct http_response a = {0};
    if (marker->len > 0) {
        buf_adds(&query, "continuation-token=");
        http_escape(buf_str(marker), "", &query);
        buf_adds(&query, "&");
    }
    buf_adds(&query, "encoding-type=url&list-type=2&max-keys=1000&prefix=");
    http_escape(r->prefix, "", &query);
    http_escape(prefix, "", &query);
    struct call c = {.s3 = s3_of(r), .method = "GET", .query = buf_str(&query)};
    const struct http_request more = {.body_max = LIST_MAX};
    enum rc rc = perform(&c, &more, &a, err);
    return rc ? rc : s3_read_list(r, buf_str(&a.body), a.body.len, marker, listed, err);
}

/* S3 says yes to the removal of what is not there. */
static enum rc s3_remove(struct remote *r, const char *key, struct err *err)
{
    struct call head = {.s3 = s3_of(r), .method = "HEAD", .key = key};
    struct call c = {.s3 = s3_of(r), .method = "DELETE", .key = key};
    CLEANUP(http_response_done) struct http_response a = {0}, b = {0};
    enum rc rc = perform(&head, NULL, &a, err);
    return rc ? rc : perform(&c, NULL, &b, err);
}

/* One page is enough: what is left is for the next time. */
static void s3_sweep(struct remote *r)
{
    CLEANUP(buf_done) struct buf query = BUF_INIT;
    CLEANUP(buf_done) struct buf old = BUF_INIT;
    CLEANUP(http_response_done) struct http_response a = {0};
    buf_adds(&query, "encoding-type=url&max-uploads=1000&prefix=");
    http_escape(r->prefix, "", &query);
    buf_adds(&query, "&uploads=");
    struct call c = {.s3 = s3_of(r), .method = "GET", .query = buf_str(&query)};
    const struct http_request more = {.body_max = LIST_MAX};
    if (perform(&c, &more, &a, NULL) ||
        s3_read_uploads(buf_str(&a.body), a.body.len, (uint64_t)time(NULL) - UPLOAD_OLD, &old,
                        NULL))
        return; /* not ours to say: the listing itself will */
    for (size_t at = 0; at < old.len;) {
        const char *name = old.data + at, *id = name + strlen(name) + 1;
        if (strncmp(name, r->prefix, strlen(r->prefix)) == 0)
            abandon(s3_of(r), name, NULL, id);
        at += strlen(name) + strlen(id) + 2;
    }
}

static void s3_after_fork(struct remote *r)
{
    s3_chain_after_fork(s3_of(r)->chain);
}

static void s3_free(struct remote *r)
{
    struct s3 *s = s3_of(r);
    remote_done(r);
    s3_chain_freep(&s->chain);
    free(s->bucket);
    free(s->region);
    free(s->base);
    free(s->host);
    free(s->path);
    free(s->sse);
    free(s->sse_key);
    free(s);
}

static const struct remote_ops s3_ops = {.backend = REMOTE_BACKEND_OPS("s3"),
                                         .parts_max = PARTS_MAX,
                                         .look = s3_look,
                                         .get = s3_get,
                                         .put = s3_put,
                                         .begin = s3_begin,
                                         .put_part = s3_put_part,
                                         .finish = s3_finish,
                                         .abandon = s3_abandon,
                                         .list = s3_list,
                                         .remove = s3_remove,
                                         .sweep = s3_sweep,
                                         .after_fork = s3_after_fork,
                                         .free = s3_free};

/* ---- settings ---- */

static const char *setting(const struct backend_url *u, const struct backend_options *o,
                           const char *name, const char *variable)
{
    const char *value = backend_url_get(u, name);
    if (!value && variable && o->env)
        value = o->env(variable);
    return value && *value ? value : NULL;
}

static bool is_name(const char *text, const char *also)
{
    for (const char *p = text; *p; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || strchr(also, *p)))
            return false;
    return *text != '\0';
}

static enum rc set_encryption(struct s3 *s, const struct backend_url *u, struct err *err)
{
    const char *sse = backend_url_get(u, "sse"), *key = backend_url_get(u, "sse_kms_key_id");
    if (sse && strcmp(sse, "AES256") != 0 && strcmp(sse, "aws:kms") != 0)
        return err_set(
            err, RC_INVALID,
            "sse must be AES256 or aws:kms; keys of customers are not supported, a store "
            "can be encrypted by chrek itself");
    if (key && (!sse || strcmp(sse, "aws:kms") != 0))
        return err_set(err, RC_INVALID, "sse_kms_key_id needs sse=aws:kms");
    s->sse = mem_strdup(sse);
    s->sse_key = mem_strdup(key);
    return RC_OK;
}

/* Where the bucket is: base, host and path. */
static enum rc set_place(struct s3 *s, const char *endpoint, const char *style, struct err *err)
{
    CLEANUP(mem_freep) char *amazon = mem_asprintf("https://s3.%s.amazonaws.com", s->region);
    bool by_path = endpoint != NULL || strchr(s->bucket, '.');
    if (style && strcmp(style, "path") != 0 && strcmp(style, "virtual") != 0)
        return err_set(err, RC_INVALID, "style must be path or virtual");
    if (style)
        by_path = strcmp(style, "path") == 0;
    endpoint = endpoint ? endpoint : amazon;
    s->tls = strncasecmp(endpoint, "https://", 8) == 0;
    if (!s->tls && strncasecmp(endpoint, "http://", 7) != 0)
        return err_set(err, RC_INVALID, "endpoint must begin with http:// or https://");
    const char *host = endpoint + (s->tls ? 8 : 7), *usual = s->tls ? ":443" : ":80";
    size_t len = strcspn(host, "/?#"), end = len + strspn(host + len, "/");
    if (len == 0 || host[end] || memchr(host, '@', len))
        return err_set(err, RC_INVALID, "endpoint must be http[s]://HOST[:PORT]");
    size_t n = strlen(usual);
    if (len > n && strncmp(host + len - n, usual, n) == 0)
        len -= n;
    s->host = by_path ? mem_asprintf("%.*s", (int)len, host)
                      : mem_asprintf("%s.%.*s", s->bucket, (int)len, host);
    s->path = by_path ? mem_asprintf("/%s", s->bucket) : mem_strdup("");
    s->base = mem_asprintf("%s://%s", s->tls ? "https" : "http", s->host);
    return RC_OK;
}

static enum rc configure(struct s3 *s, const struct backend_url *u, const struct backend_options *o,
                         struct err *err)
{
    static const char *const known[] = {"endpoint", "region", "profile",        "style",
                                        "ca",       "sse",    "sse_kms_key_id", NULL};
    struct s3_chain_options chain = {.env = o->env, .profile = backend_url_get(u, "profile")};
    enum rc rc = backend_url_only(u, known, err);
    if (!rc && !is_name(u->host, ".-"))
        rc = err_set(err, RC_INVALID, "'%.64s' is no name of a bucket", u->host);
    if (rc)
        return rc;
    const char *region = setting(u, o, "region", "AWS_REGION");
    region = region ? region : setting(u, o, "region", "AWS_DEFAULT_REGION");
    CLEANUP(mem_freep) char *from_profile = region ? NULL : s3_profile_get(&chain, "region");
    region = region ? region : from_profile;
    s->bucket = mem_strdup(u->host);
    s->region = mem_strdup(region ? region : "us-east-1");
    if (!is_name(s->region, "-"))
        return err_set(err, RC_INVALID, "'%.64s' is no name of a region", s->region);
    const char *endpoint = setting(u, o, "endpoint", "AWS_ENDPOINT_URL_S3");
    endpoint = endpoint ? endpoint : setting(u, o, "endpoint", "AWS_ENDPOINT_URL");
    rc = set_place(s, endpoint, backend_url_get(u, "style"), err);
    if (!rc)
        rc = set_encryption(s, u, err);
    chain.region = s->region;
    chain.ca_file = setting(u, o, "ca", "AWS_CA_BUNDLE");
    return rc ? rc : s3_chain_open(&chain, &s->chain, err);
}

enum rc backend_s3_open(const struct backend_url *u, const struct backend_options *o,
                        struct backend **out, struct err *err)
{
    struct s3 *s = mem_zalloc(sizeof(*s));
    struct http_client *http = NULL;
    const struct http_options h = {.ca_file = setting(u, o, "ca", "AWS_CA_BUNDLE"),
                                   .bytes_per_second = o->bytes_per_second};
    enum rc rc = http_open(&h, &http, err);
    if (!rc)
        rc = remote_init(&s->remote, &s3_ops, u->path, http, err);
    if (rc)
        http_closep(&http);
    if (!rc)
        rc = configure(s, u, o, err);
    if (rc)
        s3_free(&s->remote);
    else
        *out = &s->remote.base;
    return rc;
}

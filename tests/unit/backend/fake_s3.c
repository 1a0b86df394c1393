#include "unit/backend/fake_s3.h"

#include "backend/s3_answer.h"
#include "base/buf.h"
#include "base/mem.h"
#include "harness/test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PARTS 64

struct thing {
    struct thing *next;
    char *name; /* in the bucket */
    char *data;
    size_t len;
    char token[64];
    unsigned number;
    unsigned age_s;            /* of an upload */
    struct thing *part[PARTS]; /* of an upload */
};

struct fake_s3 {
    struct httpd *httpd;
    char url[256];
    pthread_mutex_t lock;
    struct thing *objects, *uploads; /* objects in order */
    unsigned last_number;
    enum fake_fault fault;
    unsigned status;
    const char *code;
    atomic_uint answers, receiving, parallel;
    char *seen;
};

static struct thing **find(struct thing **list, const char *name)
{
    while (*list && strcmp((*list)->name, name) < 0)
        list = &(*list)->next;
    return list;
}

static bool is_at(struct thing **place, const char *name)
{
    return *place && strcmp((*place)->name, name) == 0;
}

static void thing_free(struct thing *t)
{
    for (size_t i = 0; t && i < PARTS; i++)
        if (t->part[i])
            thing_free(t->part[i]);
    if (t) {
        free(t->name);
        free(t->data);
    }
    free(t);
}

static struct thing *thing_new(struct fake_s3 *f, const char *name, const char *data, size_t len)
{
    struct thing *t = mem_zalloc(sizeof(*t));
    t->name = mem_strdup(name);
    t->data = mem_alloc(len + 1);
    if (len)
        memcpy(t->data, data, len);
    t->len = len;
    t->number = ++f->last_number;
    return t;
}

static void refuse(struct httpd_request *r, unsigned status, const char *code)
{
    char text[512];
    int n =
        snprintf(text, sizeof(text),
                 "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>said &lt;so&gt;</Message>"
                 "<ServerTime>2001-02-03T04:05:06Z</ServerTime></Error>",
                 code);
    httpd_reply(r, status, NULL, text, (size_t)n);
}

/* A value of the query, decoded; NULL when it is not there. */
static char *parameter(const struct httpd_request *r, const char *name)
{
    char text[64];
    (void)snprintf(text, sizeof(text), "%s=", name);
    const char *p = strchr(r->target, '?');
    while (p && strncmp(p + 1, text, strlen(text)) != 0)
        p = strchr(p + 1, '&');
    if (!p)
        return NULL;
    p += 1 + strlen(text);
    CLEANUP(mem_freep) char *raw = mem_asprintf("%.*s", (int)strcspn(p, "&"), p);
    struct buf out = BUF_INIT;
    buf_adds(&out, "");
    s3_decode(raw, &out);
    char *value = out.len ? buf_steal(&out) : mem_strdup("");
    buf_done(&out);
    return value;
}

static bool third(struct fake_s3 *f)
{
    return atomic_fetch_add(&f->answers, 1) % 3 == 1;
}

/* ---- objects ---- */

static void put_object(struct fake_s3 *f, struct httpd_request *r, const char *name)
{
    char match[16], token[64];
    struct thing **place = find(&f->objects, name);
    if (is_at(place, name)) {
        if (*httpd_header(r, "if-none-match", match, sizeof(match))) {
            refuse(r, 412, "PreconditionFailed");
            return;
        }
        struct thing *old = *place;
        *place = old->next;
        thing_free(old);
    }
    struct thing *t = thing_new(f, name, r->body, r->body_len);
    (void)snprintf(t->token, sizeof(t->token), "%s",
                   httpd_header(r, "x-amz-meta-chrek-writer", token, sizeof(token)));
    t->next = *place;
    *place = t;
    httpd_reply(r, 200, "ETag: \"e\"\r\n", NULL, 0);
}

static void send_range(struct fake_s3 *f, struct httpd_request *r, const struct thing *t,
                       size_t from, size_t to)
{
    size_t n = to + 1 - from;
    bool bad = third(f);
    if (bad && f->fault == FAKE_SHORT && n > 1)
        n /= 2;
    httpd_sendf(r,
                "HTTP/1.1 206 x\r\nContent-Length: %zu\r\nContent-Range: bytes %zu-%zu/%zu\r\n"
                "ETag: \"%u\"\r\nx-amz-meta-chrek-writer: %s\r\n\r\n",
                n, from, from + n - 1, t->len,
                f->fault == FAKE_FICKLE ? ++f->last_number : t->number, t->token);
    if (!bad || (f->fault != FAKE_HALF && f->fault != FAKE_TRICKLE)) {
        httpd_send(r, t->data + from, n);
        return;
    }
    httpd_send(r, t->data + from, n / 2);
    if (f->fault == FAKE_HALF) {
        httpd_reset(r);
        return;
    }
    httpd_pause(200);
    httpd_send(r, t->data + from + n / 2, n - n / 2);
}

static void get_object(struct fake_s3 *f, struct httpd_request *r, const char *name)
{
    struct thing **place = find(&f->objects, name);
    char text[256], tag[32];
    size_t from = 0, to = 0;
    if (!is_at(place, name)) {
        refuse(r, 404, "NoSuchKey");
        return;
    }
    const struct thing *t = *place;
    (void)snprintf(tag, sizeof(tag), "\"%u\"", t->number);
    if (*httpd_header(r, "if-match", text, sizeof(text)) && strcmp(text, tag) != 0) {
        refuse(r, 412, "PreconditionFailed");
    } else if (strcmp(r->method, "HEAD") == 0) {
        (void)snprintf(text, sizeof(text), "ETag: %s\r\nx-amz-meta-chrek-writer: %s\r\n", tag,
                       t->token);
        httpd_reply(r, 200, text, t->data, t->len);
    } else if (sscanf(httpd_header(r, "range", text, sizeof(text)), "bytes=%zu-%zu", &from, &to) !=
                   2 ||
               from >= t->len) {
        (void)snprintf(text, sizeof(text), "Content-Range: bytes */%zu\r\n", t->len);
        httpd_reply(r, 416, text, NULL, 0);
    } else {
        send_range(f, r, t, from, to < t->len ? to : t->len - 1);
    }
}

static void delete_object(struct fake_s3 *f, struct httpd_request *r, const char *name)
{
    struct thing **place = find(&f->objects, name), *t = *place;
    if (is_at(place, name)) {
        *place = t->next;
        thing_free(t);
    }
    httpd_reply(r, 204, NULL, NULL, 0);
}

static void list_objects(struct fake_s3 *f, struct httpd_request *r)
{
    CLEANUP(mem_freep) char *prefix = parameter(r, "prefix");
    CLEANUP(mem_freep) char *marker = parameter(r, "continuation-token");
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    unsigned n = 0;
    const char *last = NULL;
    buf_adds(&out, "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/\">"
                   "<Contents><Key>some/prefix/no%20key%0a</Key><Size>1</Size></Contents>");
    const struct thing *t = f->objects;
    for (; t && n < 500; t = t->next) {
        if (strncmp(t->name, prefix, strlen(prefix)) != 0 ||
            (marker && strcmp(t->name, marker) <= 0))
            continue;
        buf_addf(&out, "<Contents><Key>%s</Key><Size>%zu</Size></Contents>", t->name, t->len);
        last = t->name;
        n++;
    }
    buf_addf(&out, "<IsTruncated>%s</IsTruncated>", t ? "true" : "false");
    if (t)
        buf_addf(&out, "<NextContinuationToken>%s</NextContinuationToken>", last ? last : "~");
    buf_adds(&out, "</ListBucketResult>");
    httpd_reply(r, 200, NULL, buf_str(&out), out.len);
}

/* ---- uploads in parts ---- */

static struct thing **upload_of(struct fake_s3 *f, const char *id)
{
    struct thing **place = &f->uploads;
    while (*place && (*place)->number != strtoul(id, NULL, 10))
        place = &(*place)->next;
    return place;
}

static void begin_upload(struct fake_s3 *f, struct httpd_request *r, const char *name)
{
    char text[256], token[64];
    struct thing *u = thing_new(f, name, NULL, 0);
    (void)snprintf(u->token, sizeof(u->token), "%s",
                   httpd_header(r, "x-amz-meta-chrek-writer", token, sizeof(token)));
    u->next = f->uploads;
    f->uploads = u;
    int n = snprintf(text, sizeof(text),
                     "<InitiateMultipartUploadResult><UploadId>%u</UploadId>"
                     "</InitiateMultipartUploadResult>",
                     u->number);
    httpd_reply(r, 200, NULL, text, (size_t)n);
}

static void put_part(struct fake_s3 *f, struct httpd_request *r, struct thing *u,
                     const char *number)
{
    char header[64];
    unsigned n = (unsigned)strtoul(number, NULL, 10);
    CHECK(n >= 1 && n <= PARTS);
    if (u->part[n - 1])
        thing_free(u->part[n - 1]);
    struct thing *p = u->part[n - 1] = thing_new(f, number, r->body, r->body_len);
    (void)snprintf(header, sizeof(header), "ETag: \"%s%u\"\r\n", f->fault == FAKE_LIAR ? "lie" : "",
                   p->number);
    httpd_reply(r, 200, f->fault == FAKE_NO_TAGS ? NULL : header, NULL, 0);
}

static void finish_upload(struct fake_s3 *f, struct httpd_request *r, struct thing **place)
{
    struct thing *u = *place, **to = find(&f->objects, u->name);
    const char *p = r->body;
    unsigned n = 0, number, tag;
    CLEANUP(buf_done) struct buf whole = {.max = (size_t)1 << 30};
    if (f->fault == FAKE_LATE_ERROR) {
        refuse(r, 200, "InternalFailure");
        return;
    }
    while ((p = strstr(p, "<Part>"))) {
        if (sscanf(p, "<Part><PartNumber>%u</PartNumber><ETag>&#34;%u&#34;</ETag></Part>", &number,
                   &tag) != 2 ||
            number != n + 1 || !u->part[n] || u->part[n]->number != tag) {
            refuse(r, 400, "InvalidPart");
            return;
        }
        buf_add(&whole, u->part[n]->data, u->part[n]->len);
        n++;
        p++;
    }
    if (is_at(to, u->name)) {
        refuse(r, 412, "PreconditionFailed");
        return;
    }
    struct thing *o = thing_new(f, u->name, buf_str(&whole), whole.len);
    memcpy(o->token, u->token, sizeof(o->token));
    o->next = *to;
    *to = o;
    *place = u->next;
    thing_free(u);
    httpd_reply(r, 200, NULL, "<CompleteMultipartUploadResult/>", 32);
}

static void list_uploads(struct fake_s3 *f, struct httpd_request *r)
{
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    buf_adds(&out, "<ListMultipartUploadsResult>");
    for (const struct thing *u = f->uploads; u; u = u->next) {
        time_t begun = time(NULL) - u->age_s;
        struct tm tm;
        char text[32];
        (void)gmtime_r(&begun, &tm);
        (void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S.000Z", &tm);
        buf_addf(&out,
                 "<Upload><Key>%s</Key><UploadId>%u</UploadId><Initiated>%s</Initiated></Upload>",
                 u->name, u->number, text);
    }
    buf_adds(&out, "</ListMultipartUploadsResult>");
    httpd_reply(r, 200, NULL, buf_str(&out), out.len);
}

static void about_upload(struct fake_s3 *f, struct httpd_request *r, const char *id)
{
    CLEANUP(mem_freep) char *number = parameter(r, "partNumber");
    struct thing **place = upload_of(f, id), *u = *place;
    if (!u) {
        refuse(r, 404, "NoSuchUpload");
    } else if (strcmp(r->method, "PUT") == 0 && number) {
        put_part(f, r, u, number);
    } else if (strcmp(r->method, "POST") == 0) {
        finish_upload(f, r, place);
    } else {
        CHECK_STR(r->method, "DELETE");
        *place = u->next;
        thing_free(u);
        httpd_reply(r, 204, NULL, NULL, 0);
    }
}

/* ---- requests ---- */

static void carry_out(struct fake_s3 *f, struct httpd_request *r)
{
    static const char bucket[] = "/bucket";
    CLEANUP(mem_freep) char *id = parameter(r, "uploadId");
    CLEANUP(mem_freep) char *uploads = parameter(r, "uploads");
    CHECK(strncmp(r->target, bucket, strlen(bucket)) == 0);
    const char *path = r->target + strlen(bucket);
    CLEANUP(mem_freep) char *name = mem_asprintf("%.*s", (int)strcspn(path, "?"), path);
    bool on_bucket = name[0] == '\0';
    if (id)
        about_upload(f, r, id);
    else if (on_bucket && uploads)
        list_uploads(f, r);
    else if (on_bucket)
        list_objects(f, r);
    else if (uploads)
        begin_upload(f, r, name + 1);
    else if (strcmp(r->method, "PUT") == 0)
        put_object(f, r, name + 1);
    else if (strcmp(r->method, "DELETE") == 0)
        delete_object(f, r, name + 1);
    else
        get_object(f, r, name + 1);
}

static bool fails_at_once(struct fake_s3 *f, struct httpd_request *r)
{
    char token[64];
    if (f->fault == FAKE_REFUSE) {
        refuse(r, f->status, f->code);
    } else if (f->fault == FAKE_EXPIRED &&
               strcmp(httpd_header(r, "x-amz-security-token", token, sizeof(token)), "old") == 0) {
        refuse(r, 400, "ExpiredToken");
    } else if (f->fault == FAKE_STORM && third(f)) {
        refuse(r, 503, "SlowDown");
    } else if (f->fault == FAKE_DEAF && third(f)) {
        httpd_reset(r);
    } else {
        return false;
    }
    return true;
}

static void note(struct fake_s3 *f, const struct httpd_request *r)
{
    if ((strcmp(r->method, "PUT") == 0 && !strstr(r->target, "partNumber")) ||
        strstr(r->target, "?uploads=")) {
        free(f->seen);
        f->seen = mem_strdup(r->headers);
    }
}

static void serve(struct httpd_request *r)
{
    struct fake_s3 *f = r->arg;
    char text[256];
    if (!strstr(httpd_header(r, "authorization", text, sizeof(text)),
                "/eu-test-1/s3/aws4_request")) {
        refuse(r, 403, "AccessDenied");
        return;
    }
    unsigned now = atomic_fetch_add(&f->receiving, 1) + 1;
    if (strstr(r->target, "partNumber=")) {
        if (now > atomic_load(&f->parallel))
            atomic_store(&f->parallel, now);
        httpd_pause(30); /* so that others come meanwhile */
    }
    (void)pthread_mutex_lock(&f->lock);
    if (!fails_at_once(f, r)) {
        note(f, r);
        if (f->fault == FAKE_MUTE && third(f)) {
            struct httpd_request unheard = *r;
            unheard.fd = -1; /* nothing is sent */
            carry_out(f, &unheard);
            httpd_reset(r);
        } else {
            carry_out(f, r);
        }
    }
    (void)pthread_mutex_unlock(&f->lock);
    atomic_fetch_sub(&f->receiving, 1);
}

struct fake_s3 *fake_s3_start(void)
{
    struct fake_s3 *f = mem_zalloc(sizeof(*f));
    (void)pthread_mutex_init(&f->lock, NULL);
    f->httpd = httpd_start(serve, f);
    (void)snprintf(f->url, sizeof(f->url), "s3://bucket/some/prefix?endpoint=%s&region=eu-test-1",
                   httpd_url(f->httpd));
    return f;
}

void fake_s3_stopp(struct fake_s3 **fake)
{
    struct fake_s3 *f = *fake;
    if (!f)
        return;
    httpd_stopp(&f->httpd);
    while (f->objects) {
        struct thing *t = f->objects;
        f->objects = t->next;
        thing_free(t);
    }
    while (f->uploads) {
        struct thing *t = f->uploads;
        f->uploads = t->next;
        thing_free(t);
    }
    free(f->seen);
    free(f);
    *fake = NULL;
}

const char *fake_s3_url(const struct fake_s3 *f)
{
    return f->url;
}

struct httpd *fake_s3_httpd(struct fake_s3 *f)
{
    return f->httpd;
}

void fake_s3_fail(struct fake_s3 *f, enum fake_fault fault)
{
    (void)pthread_mutex_lock(&f->lock);
    f->fault = fault;
    (void)pthread_mutex_unlock(&f->lock);
}

void fake_s3_refuse(struct fake_s3 *f, unsigned status, const char *code)
{
    (void)pthread_mutex_lock(&f->lock);
    f->fault = FAKE_REFUSE;
    f->status = status;
    f->code = code;
    (void)pthread_mutex_unlock(&f->lock);
}

static unsigned count(struct fake_s3 *f, struct thing *const *list)
{
    unsigned n = 0;
    (void)pthread_mutex_lock(&f->lock);
    for (const struct thing *t = *list; t; t = t->next)
        n++;
    (void)pthread_mutex_unlock(&f->lock);
    return n;
}

unsigned fake_s3_uploads(struct fake_s3 *f)
{
    return count(f, &f->uploads);
}

unsigned fake_s3_objects(struct fake_s3 *f)
{
    return count(f, &f->objects);
}

void fake_s3_leave_upload(struct fake_s3 *f, const char *name, unsigned age_s)
{
    (void)pthread_mutex_lock(&f->lock);
    struct thing *u = thing_new(f, name, NULL, 0);
    u->age_s = age_s;
    u->next = f->uploads;
    f->uploads = u;
    (void)pthread_mutex_unlock(&f->lock);
}

unsigned fake_s3_parallel(struct fake_s3 *f)
{
    return atomic_load(&f->parallel);
}

const char *fake_s3_seen(struct fake_s3 *f, const char *name, char *out, size_t cap)
{
    (void)pthread_mutex_lock(&f->lock);
    struct httpd_request r = {.headers = f->seen};
    (void)httpd_header(&r, name, out, cap);
    (void)pthread_mutex_unlock(&f->lock);
    return out;
}

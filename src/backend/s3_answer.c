#include "backend/s3_answer.h"

#include "backend/s3_credentials.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/num.h"
#include "codec/xml.h"

#include <stdio.h>
#include <string.h>

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void s3_decode(const char *text, struct buf *out)
{
    for (const char *p = text; *p; p++) {
        int high = p[0] == '%' ? digit(p[1]) : -1;
        int low = high >= 0 ? digit(p[2]) : -1;
        char c = *p;
        if (c == '+')
            c = ' ';
        if (low >= 0 && (high || low)) {
            c = (char)(high * 16 + low);
            p += 2;
        }
        buf_add(out, &c, 1);
    }
}

/* ---- errors ---- */

static bool is_one_of(const char *code, const char *const *codes)
{
    for (; *codes; codes++)
        if (strcmp(code, *codes) == 0)
            return true;
    return false;
}

bool s3_is_transient(const struct remote_error *e)
{
    static const char *const codes[] = {
        "RequestTimeout", "ConditionalRequestConflict", "OperationAborted",        "SlowDown",
        "InternalError",  "ServiceUnavailable",         "RequestTimeoutException", NULL};
    return is_one_of(e->code, codes);
}

bool s3_is_expired(const struct remote_error *e)
{
    static const char *const codes[] = {"ExpiredToken", "ExpiredTokenException",
                                        "TokenRefreshRequired", "InvalidToken", NULL};
    return is_one_of(e->code, codes);
}

static enum rc explain_denied(const struct remote_error *e, const char *source, struct err *err)
{
    char now[CLOCK_RFC3339_LEN];
    if (strcmp(e->code, "InvalidAccessKeyId") == 0)
        return err_set(err, RC_DENIED, "the server does not know the access key from %s", source);
    if (strcmp(e->code, "SignatureDoesNotMatch") == 0)
        return err_set(err, RC_DENIED, "the secret key from %s does not belong to its access key",
                       source);
    if (strcmp(e->code, "RequestTimeTooSkewed") == 0) {
        clock_rfc3339(now);
        return err_set(err, RC_DENIED,
                       "this machine's clock is wrong: here it is %.19sZ, at the server %s; set it",
                       now, e->server_time[0] ? e->server_time : "another time");
    }
    if (s3_is_expired(e))
        return err_set(err, RC_DENIED, "the session token from %s has expired: get a new one",
                       source);
    return err_set(err, RC_DENIED,
                   "access denied%s%s (with the key from %s; needed are s3:GetObject, PutObject, "
                   "DeleteObject, ListBucket)",
                   e->message[0] ? ": " : "", e->message, source);
}

enum rc s3_explain(const struct http_response *a, const struct remote_error *e, const char *bucket,
                   const char *source, struct err *err)
{
    static const char *const full[] = {"QuotaExceeded", "InsufficientCapacity", "XMinioStorageFull",
                                       "StorageFull",   "InsufficientStorage",  NULL};
    static const char *const elsewhere[] = {"PermanentRedirect", "AuthorizationHeaderMalformed",
                                            "TemporaryRedirect",
                                            "IllegalLocationConstraintException", NULL};
    const char *region = http_header(a, "x-amz-bucket-region");
    if (strcmp(e->code, "NoSuchBucket") == 0)
        return err_set(err, RC_INVALID, "there is no bucket '%s': create it, or correct the URL",
                       bucket);
    if (is_one_of(e->code, full) || a->status == 507)
        return err_set(err, RC_NO_SPACE, "the bucket's quota or the server's disks are full: %s",
                       e->message[0] ? e->message : e->code);
    if (is_one_of(e->code, elsewhere) || (a->status >= 301 && a->status <= 308))
        return err_set(err, RC_INVALID, "bucket '%s' is in another region%s%s: add ?region=...",
                       bucket, region ? ", " : "", region ? region : "");
    if (s3_is_expired(e) || a->status == 401 || a->status == 403)
        return explain_denied(e, source, err);
    if (a->status == 404)
        return err_set(err, RC_NOT_FOUND, "there is no such object");
    if (a->status == 412)
        return err_set(err, RC_EXISTS, "it is there already");
    if (strcmp(e->code, "NotImplemented") == 0)
        return err_set(err, RC_UNSUPPORTED, "the server lacks a feature: %s", e->message);
    enum rc rc = http_status_rc(a->status);
    return err_set(err, rc ? rc : RC_IO, "status %u %s%s%s", a->status, e->code,
                   e->message[0] ? ": " : "", e->message);
}

/* ---- listings ---- */

struct page {
    const struct remote *remote;
    struct buf *marker, *listed;
    struct buf key, id;
    uint64_t size, begun, before;
    bool has_size, more;
};

static void page_done(struct page *p)
{
    buf_done(&p->key);
    buf_done(&p->id);
}

static enum rc note_object(void *arg, const char *path, const char *text, struct err *err)
{
    struct page *p = arg;
    if (strcmp(path, "/ListBucketResult/Contents/Key") == 0) {
        buf_cut(&p->key, 0);
        s3_decode(text, &p->key);
    } else if (strcmp(path, "/ListBucketResult/Contents/Size") == 0) {
        p->has_size = true;
        return num_parse_u64(text, 0, UINT64_MAX, &p->size, err) ? RC_CORRUPT : RC_OK;
    } else if (strcmp(path, "/ListBucketResult/Contents") == 0) {
        if (!p->key.len || !p->has_size)
            return err_set(err, RC_CORRUPT, "the listing has an object without key or size");
        remote_listed(p->remote, buf_str(&p->key), p->size, p->listed);
        buf_cut(&p->key, 0);
        p->has_size = false;
    } else if (strcmp(path, "/ListBucketResult/IsTruncated") == 0) {
        p->more = strcmp(text, "true") == 0;
    } else if (strcmp(path, "/ListBucketResult/NextContinuationToken") == 0) {
        buf_adds(p->marker, text);
    }
    return RC_OK;
}

enum rc s3_read_list(const struct remote *r, const char *data, size_t len, struct buf *marker,
                     struct buf *listed, struct err *err)
{
    CLEANUP(page_done) struct page p = {.remote = r, .marker = marker, .listed = listed};
    buf_cut(marker, 0);
    enum rc rc = xml_read("listing", data, len, note_object, &p, err);
    if (!rc && p.more && marker->len == 0)
        rc = err_set(err, RC_CORRUPT, "the listing goes on, but does not say where");
    if (!p.more)
        buf_cut(marker, 0);
    return rc;
}

static enum rc note_upload(void *arg, const char *path, const char *text, struct err *err)
{
    struct page *p = arg;
    (void)err;
    if (strcmp(path, "/ListMultipartUploadsResult/Upload/Key") == 0) {
        buf_cut(&p->key, 0);
        s3_decode(text, &p->key);
    } else if (strcmp(path, "/ListMultipartUploadsResult/Upload/UploadId") == 0) {
        buf_cut(&p->id, 0);
        buf_adds(&p->id, text);
    } else if (strcmp(path, "/ListMultipartUploadsResult/Upload/Initiated") == 0) {
        p->begun = s3_time(text);
    } else if (strcmp(path, "/ListMultipartUploadsResult/Upload") == 0) {
        if (p->key.len && p->id.len && p->begun && p->begun < p->before) {
            buf_add(p->listed, buf_str(&p->key), p->key.len + 1);
            buf_add(p->listed, buf_str(&p->id), p->id.len + 1);
        }
        buf_cut(&p->key, 0);
        buf_cut(&p->id, 0);
        p->begun = 0;
    }
    return RC_OK;
}

enum rc s3_read_uploads(const char *data, size_t len, uint64_t before, struct buf *out,
                        struct err *err)
{
    CLEANUP(page_done) struct page p = {.listed = out, .before = before};
    return xml_read("listing of uploads", data, len, note_upload, &p, err);
}

struct one {
    const char *path;
    char *out;
    size_t cap;
};

static enum rc note_one(void *arg, const char *path, const char *text, struct err *err)
{
    const struct one *o = arg;
    (void)err;
    if (strcmp(path, o->path) == 0)
        (void)snprintf(o->out, o->cap, "%s", text);
    return RC_OK;
}

enum rc s3_read_one(const char *data, size_t len, const char *path, char *out, size_t cap,
                    struct err *err)
{
    struct one o = {path, out, cap};
    out[0] = '\0';
    return xml_read("answer", data, len, note_one, &o, err);
}

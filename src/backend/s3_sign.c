#include "backend/s3_sign.h"

#include "codec/sha256.h"

#include <string.h>

void s3_date(time_t now, char out[S3_DATE_LEN + 1])
{
    struct tm tm;
    (void)gmtime_r(&now, &tm);
    (void)strftime(out, S3_DATE_LEN + 1, "%Y%m%dT%H%M%SZ", &tm);
}

static void add_header_names(const struct s3_signing *s, struct buf *out)
{
    for (size_t i = 0; i < s->n_headers; i++)
        buf_addf(out, "%s%s", i ? ";" : "", s->headers[i].name);
}

/* The request as both sides write it down. */
static void canonical_digest(const struct s3_signing *s, char hex[SHA256_HEX_LEN + 1])
{
    uint8_t digest[SHA256_LEN];
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    buf_addf(&text, "%s\n%s\n%s\n", s->method, s->path, s->query);
    for (size_t i = 0; i < s->n_headers; i++)
        buf_addf(&text, "%s:%s\n", s->headers[i].name, s->headers[i].value);
    buf_adds(&text, "\n");
    add_header_names(s, &text);
    buf_addf(&text, "\n%s", s->payload);
    sha256_of(buf_str(&text), text.len, digest);
    sha256_hex(digest, hex);
}

static void next_key(uint8_t key[SHA256_LEN], const char *text, size_t len)
{
    uint8_t out[SHA256_LEN];
    sha256_hmac(key, SHA256_LEN, text, len, out);
    memcpy(key, out, SHA256_LEN);
}

void s3_sign(const struct s3_signing *s, struct buf *out)
{
    char digest[SHA256_HEX_LEN + 1];
    uint8_t key[SHA256_LEN];
    CLEANUP(buf_done) struct buf scope = BUF_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    canonical_digest(s, digest);
    buf_addf(&scope, "%.8s/%s/%s/aws4_request", s->date, s->region, s->service);
    buf_addf(&text, "AWS4-HMAC-SHA256\n%s\n%s\n%s", s->date, buf_str(&scope), digest);

    CLEANUP(buf_done) struct buf first = BUF_INIT;
    buf_addf(&first, "AWS4%s", s->secret);
    sha256_hmac(buf_str(&first), first.len, s->date, 8, key);
    next_key(key, s->region, strlen(s->region));
    next_key(key, s->service, strlen(s->service));
    next_key(key, "aws4_request", strlen("aws4_request"));
    next_key(key, buf_str(&text), text.len);
    sha256_hex(key, digest);

    buf_addf(out, "AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=", s->access, buf_str(&scope));
    add_header_names(s, out);
    buf_addf(out, ",Signature=%s", digest);
}

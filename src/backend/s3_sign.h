/* Signature Version 4 of Amazon's web services, by OpenSSL rather than by libcurl, whose 7.88 signs
 * headers that it does not send.  Threads: safe. */
#pragma once

#include "base/buf.h"

#include <stddef.h>
#include <time.h>

#define S3_DATE_LEN 16 /* of 20260131T120000Z, without the NUL */
#define S3_UNSIGNED "UNSIGNED-PAYLOAD"

struct s3_header {
    const char *name, *value; /* lower case; without blanks at its ends */
};

struct s3_signing {
    const char *access, *secret; /* the key */
    const char *region, *service;
    const char *date; /* S3_DATE_LEN characters */
    const char *method;
    const char *path;                /* escaped */
    const char *query;               /* escaped, sorted by name, each with `=`; "" for none */
    const struct s3_header *headers; /* those that are signed, sorted by name, `host` among them */
    size_t n_headers;
    const char *payload; /* SHA-256 of the body in hexadecimal digits, or S3_UNSIGNED */
};

void s3_date(time_t now, char out[S3_DATE_LEN + 1]);

/* Append the value of the Authorization header. */
void s3_sign(const struct s3_signing *s, struct buf *out);

/* What S3 answers, in XML, and what it means to a person.  Threads: safe. */
#pragma once

#include "backend/remote.h"
#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* Append what percent-encoded text says; a bad %XX stays as it is. */
void s3_decode(const char *text, struct buf *out);

/* Whether a request that got this answer may succeed if it is sent again as it is. */
bool s3_is_transient(const struct remote_error *e);
/* Whether it may succeed with a new key. */
bool s3_is_expired(const struct remote_error *e);

/* What to tell of it.  bucket, key's source: for the remedy.  Always an error:
 * errors  RC_NOT_FOUND (the object, the upload), RC_EXISTS, RC_INVALID (bucket, region), RC_DENIED,
 *         RC_NO_SPACE, RC_TOO_BIG, RC_CORRUPT, RC_UNSUPPORTED, RC_UNAVAILABLE, RC_IO */
enum rc s3_explain(const struct http_response *a, const struct remote_error *e, const char *bucket,
                   const char *key_source, struct err *err);

/* A page of ListObjectsV2: remote_listed() for each; marker as remote_ops has it.
 * errors RC_CORRUPT */
enum rc s3_read_list(const struct remote *r, const char *data, size_t len, struct buf *marker,
                     struct buf *listed, struct err *err);

/* Uploads of ListMultipartUploads that began before `before` (seconds since 1970): key, NUL, id,
 * NUL, ...  errors RC_CORRUPT */
enum rc s3_read_uploads(const char *data, size_t len, uint64_t before, struct buf *out,
                        struct err *err);

/* The text of an element by its path, cut to fit; "" when there is none.  errors RC_CORRUPT */
enum rc s3_read_one(const char *data, size_t len, const char *path, char *out, size_t cap,
                    struct err *err);

/* Storage by URL: a path or file:///path, s3://bucket/prefix, az://container/prefix,
 * oci://registry/repository.
 *
 * A driver's settings are the URL's query, else its environment; secrets are never in the URL, but
 * for those that users put there.  Threads: safe. */
#pragma once

#include "backend/backend.h"
#include "base/buf.h"

#include <stdbool.h>

#define BACKEND_URL_MAX 4096 /* bytes */

struct backend_options {
    char *(*env)(const char *name); /* getenv(); NULL = there is none */
    bool create;                    /* of a path: make the directory, its parents too */
    uint64_t bytes_per_second; /* of all transfers of a remote storage together; 0 = no limit */
};

/* options  NULL for the defaults, else borrowed for the call
 * out      the caller's, backend_freep()
 * errors   RC_INVALID (the URL or its query), RC_UNSUPPORTED (a scheme without a driver), those of
 *          the driver: RC_NOT_FOUND (the directory), RC_DENIED (no credentials are to be found) ...
 */
enum rc backend_open_url(const char *url, const struct backend_options *options,
                         struct backend **out, struct err *err);

/* The parts of an URL, each decoded from %XX. */
struct backend_url {
    char *scheme; /* lower case; "file" for a path */
    char *host;   /* bucket, container, registry; "" for a path */
    char *path;   /* for "file" the path as given; otherwise without slashes at its ends */
    char **query; /* name, value, ..., NULL */
};

/* out     the caller's, backend_url_done()
 * errors  RC_INVALID (a control character, a bad %XX, too long, a name without value or twice, or a
 *         query for a path) */
enum rc backend_url_parse(const char *url, struct backend_url *out, struct err *err);
void backend_url_done(struct backend_url *u);
/* A value of the query, "" too; NULL when it is not there.  Borrowed. */
const char *backend_url_get(const struct backend_url *u, const char *name);
/* Refuse names that nobody asks for.  known: ends with NULL.  errors RC_INVALID */
enum rc backend_url_only(const struct backend_url *u, const char *const *known, struct err *err);

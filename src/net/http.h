/* HTTP requests over libcurl: one call, one answer, with retries.
 *
 * A client keeps connections alive, limits bandwidth and knows the patience of all who share it; a
 * request is a value.  What may be sent twice is sent again, after a pause that grows and is spread
 * at random, when the network or the server fails in a way that passes: no connection, a reset, an
 * answer that ends early or stands still, 408, 429, 500, 502, 503, 504.  A body of a GET goes on
 * where it was broken off, by a range, rather than from its start.
 *
 * Secrets: neither the query of an URL nor a header ever gets into a message.  Redirects are
 * followed only if asked for, only for GET and HEAD, never from https to http; headers that are
 * credentials do not go to another host.
 *
 * Threads: a client is shared, any number of requests run at the same time on it.  A child of
 * fork() uses its parent's only after http_after_fork().
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_client;
struct http_try;

/* How a client behaves.  0 and NULL mean the default, in brackets. */
struct http_options {
    const char *ca_file;  /* PEM, trusted instead of the system's [the system's] */
    const char *ca_pem;   /* the same as text */
    const char *cert_pem; /* our own certificate, and its key, as PEM texts [none] */
    const char *key_pem;
    const char *unix_socket;     /* connect to this, whatever the URL's host says [by the URL] */
    const char *user_agent;      /* [chrek/VERSION] */
    bool direct;                 /* no proxy, though the environment names one */
    bool any_certificate;        /* whoever answers is trusted: for an application on this machine
                                    that is asked how it is, never for what carries secrets */
    bool h2c;                    /* HTTP/2 without TLS, and without asking the server first, as gRPC
                                    has it [HTTP/1.1] */
    uint64_t connect_timeout_ns; /* for name, connection and TLS together [10 s] */
    uint64_t stall_timeout_ns;   /* a try that moves less than 1 KiB in this time is given up, as
                                    is one whose answer does not begin [30 s] */
    unsigned tries;              /* at most, of a request that makes no progress [6] */
    uint64_t backoff_min_ns;     /* upper bound of the first pause; doubles [200 ms] */
    uint64_t backoff_max_ns;     /* upper bound of every pause, a server's wish included [20 s] */
    uint64_t bytes_per_second;   /* of all bodies in both directions together [no limit] */
};

/* Whether a request may be sent again when it is not known what became of it. */
enum http_repeat {
    HTTP_REPEAT_BY_METHOD, /* GET, HEAD, PUT, DELETE: yes; others: no */
    HTTP_REPEAT_YES,
    HTTP_REPEAT_NO,
};

/* Give bytes `offset`..`offset + len` of the body to be sent, at least one; called again from an
 * earlier offset for another try.  An error ends the request and is what it returns. */
typedef enum rc http_source(void *arg, uint64_t offset, void *data, size_t len, size_t *out_len,
                            struct err *err);

/* Take the next bytes of the answer's body, each once and in order whatever the tries.  An error
 * ends the request and is what it returns. */
typedef enum rc http_sink(void *arg, const void *data, size_t len, struct err *err);

/* Told the status of an answer as soon as its head is there, before any of its body.  An error ends
 * the request and is what it returns. */
typedef enum rc http_head(void *arg, unsigned status, struct err *err);

/* Called before every try that goes to the URL's own host (so not after a redirect to another), to
 * add what must be fresh: http_try_header().  An error ends the request and is what it returns. */
typedef enum rc http_prepare(void *arg, struct http_try *t, struct err *err);

/* Asked about an answer of 400 or above that would not be repeated by itself: shall it be, say with
 * new credentials?  `body` may be cut. */
typedef bool http_again(void *arg, unsigned status, const struct buf *body);

/* Everything is borrowed for the call. */
struct http_request {
    const char *method;         /* "GET" */
    const char *url;            /* http or https */
    const char *const *headers; /* `n_headers` of "Name: value" */
    size_t n_headers;

    /* The body to be sent: `body_len` bytes at `body`, or from `source`.  `has_body` makes an empty
     * one, with Content-Length: 0. */
    const void *body;
    uint64_t body_len;
    http_source *source;
    void *source_arg;
    bool has_body;

    /* The body of an answer 200..299: exactly `into_len` bytes into the caller's memory, or to
     * `sink`, or (both NULL) into the answer, at most `body_max` bytes [1 MiB].  Of other answers
     * it is in the answer, cut at `body_max`. */
    void *into;
    size_t into_len;
    http_sink *sink;
    void *sink_arg;
    size_t body_max;

    /* Ask for `range_len` bytes from `range_offset` on; nothing else counts as the answer, but with
     * `range_short` fewer, where the server says that there are no more.  `into_len` is then
     * `range_len`. */
    bool range, range_short;
    uint64_t range_offset, range_len;

    http_head *head;
    void *head_arg;
    http_prepare *prepare;
    void *prepare_arg;
    http_again *again;
    void *again_arg;
    enum http_repeat repeat;
    unsigned redirects;        /* followed at most */
    uint64_t deadline;         /* clock_now() at which all of it is given up; 0 = never */
    uint64_t stall_timeout_ns; /* instead of the client's */
    const atomic_bool *cancel; /* given up within a second when it becomes true; may be NULL */
};

struct http_response {
    unsigned status;
    unsigned tries;     /* requests that were sent, redirects included */
    uint64_t received;  /* bytes of its body that went to `into`, `sink` or `body` */
    struct buf headers; /* for http_header() */
    struct buf body;
};

/* options: NULL for the defaults, else borrowed.  out: the caller's, http_closep()
 * errors  RC_NOT_FOUND, RC_DENIED (ca_file cannot be read), RC_IO */
enum rc http_open(const struct http_options *options, struct http_client **out, struct err *err);
void http_closep(struct http_client **c);
/* In a child of fork(), before it uses its parent's client: connections stay the parent's.  No
 * request may have been running when it forked. */
void http_after_fork(struct http_client *c);

/* RC_OK means that an answer has arrived whole, whatever its status.
 * out     the caller's, http_response_done(), also when it was not RC_OK
 * errors  RC_UNAVAILABLE (no answer in all tries), RC_TIMEOUT (the deadline), RC_CANCELLED,
 *         RC_CORRUPT (the body has another length than was asked for or announced, or another
 *         range), RC_TOO_BIG (the body, over body_max), RC_DENIED (the server's certificate; the
 *         redirect leads out of TLS), RC_INVALID (the request, an URL, ca_file holds no
 *         certificates), RC_IO, those of callbacks */
enum rc http_do(struct http_client *c, const struct http_request *r, struct http_response *out,
                struct err *err);
void http_response_done(struct http_response *r);

/* A header or trailer of the answer, the name in any case; NULL when it is not there.  Borrowed. */
const char *http_header(const struct http_response *r, const char *name);

/* For prepare: what this try asks for, and more headers for it.  They count as credentials. */
void http_try_header(struct http_try *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The value of the Range header of this try, "" for none; borrowed until prepare returns. */
const char *http_try_range(const struct http_try *t);
/* The code for an answer's status: RC_OK for 200..299, RC_DENIED for 401 and 403, RC_NOT_FOUND 404
 * and 410, RC_CONFLICT 409, RC_EXISTS 412, RC_TOO_BIG 413, RC_CORRUPT 416, RC_NO_SPACE 507,
 * RC_UNAVAILABLE for what http_do() repeats, else RC_IO. */
enum rc http_status_rc(unsigned status);

/* Append `text` as a part of an URL: all but [A-Za-z0-9._~-] and the characters of `keep` as %XX.
 */
void http_escape(const char *text, const char *keep, struct buf *out);

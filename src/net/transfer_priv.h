/* One try of a request: libcurl's part of http.c.  Threads: a try belongs to one thread. */
#pragma once

#include "net/http.h"

#include <curl/curl.h>
#include <pthread.h>

#define HTTP_IDLE_MAX 32                    /* handles, each with its connections */
#define HTTP_HEADERS_MAX ((size_t)64 << 10) /* of one answer */

struct http_client {
    struct http_options o; /* defaults filled in; texts are ours */
    pthread_mutex_t lock;
    CURL *idle[HTTP_IDLE_MAX]; /* the last used is taken first: its connections are warm */
    unsigned n_idle;
    uint64_t free_at; /* clock_now() when the bandwidth is free again */
};

/* What became of a try. */
enum try_end {
    TRY_ANSWERED, /* an answer, whole */
    TRY_UNSENT,   /* the server has seen nothing of it */
    TRY_BROKEN,   /* it may have been carried out */
    TRY_FATAL,    /* another try would end as this one */
};

struct http_try {
    struct http_client *c;
    const struct http_request *r;
    CURL *h;
    const char *url;
    struct curl_slist *fields;
    struct buf headers; /* name NUL value NUL ... */
    struct buf body;    /* of an answer 200..299 that nobody else takes */
    struct buf problem; /* of any other */
    uint64_t received;  /* of the body, handed on in all tries */
    uint64_t promised;  /* length of the range as the server says, when it may be short */
    uint64_t skip;      /* bytes to come that were handed on by an earlier try */
    uint64_t sent;      /* offset in the body to be sent */
    uint64_t window_begin, window_bytes; /* of the watch for a stall */
    uint64_t moved;
    char range[64];
    char said[CURL_ERROR_SIZE];
    unsigned status;
    bool judged; /* the answer's status and range have been looked at */
    bool stalled;
    bool odd;       /* the answer is not to what was asked: `failed` may pass */
    enum rc failed; /* a callback's; err is filled */
    struct err *err;
};

/* Send the request once, with `t->fields`, and take the answer.
 * out_rc  what to return if there is no other try; err is filled unless TRY_ANSWERED */
enum try_end transfer(struct http_try *t, enum rc *out_rc);

/* Whether a request may be sent again when it is not known what became of it. */
bool transfer_may_repeat(const struct http_request *r);

/* The URL without its query, for messages. */
void transfer_name(const struct http_request *r, const char *url, struct buf *out);

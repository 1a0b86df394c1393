/* What drivers for object stores behind HTTP have in common: an upload that becomes one request
 * when it is small, and parts sent by several threads while the caller goes on when it is not; an
 * object whose first bytes come with its size; reads that are split among threads; listings by
 * pages.  A driver (s3.c, azure.c) makes the requests.
 *
 * Memory: an upload gathers one part; of parts on their way there are at most twice the threads,
 * for all uploads of a backend together; ahead.h has its own.
 * Threads: as backend.h says; the requests are called from several at once. */
#pragma once

#include "backend/ahead.h"
#include "backend/backend.h"
#include "backend/pool.h"
#include "backend/url.h"
#include "base/buf.h"
#include "net/http.h"

#include <stdatomic.h>
#include <stdbool.h>

#define REMOTE_PART ((size_t)8 << 20)  /* of uploads and of reads that are split */
#define REMOTE_THREADS 6               /* for parts */
#define REMOTE_READS 8U                /* of those who have threads of their own */
#define REMOTE_HEAD ((size_t)64 << 10) /* what opening an object brings of it */
#define REMOTE_TAG_MAX BACKEND_TAG_MAX /* of an ETag */
#define REMOTE_TOKEN_LEN 32            /* hexadecimal digits that mark what an upload has written */

struct remote;

/* An upload as the requests see it. */
struct remote_upload {
    struct backend_upload base;
    struct remote *remote;
    char token[REMOTE_TOKEN_LEN + 1]; /* stored with the object: by it we know it as ours */
    char *id;                         /* of an upload in parts; NULL before it begins */
    char (*tags)[REMOTE_TAG_MAX];     /* of the parts, by number - 1 */
    unsigned n_parts;
    atomic_bool cancel;
};

/* What is known of an object that was looked at. */
struct remote_info {
    uint64_t size;
    char tag[REMOTE_TAG_MAX];         /* "" when the server gives none */
    char token[REMOTE_TOKEN_LEN + 1]; /* "" when it is not there */
};

/* Requests; `err` gets the bare cause. */
struct remote_ops {
    struct backend_ops backend; /* REMOTE_BACKEND_OPS() */
    unsigned parts_max;
    bool by_tag; /* objects are read by their tag, not by their key */
    /* Up to `len` bytes from the start.  out_len: how many.  errors RC_NOT_FOUND ... */
    enum rc (*look)(struct remote *r, const char *key, void *data, size_t len, size_t *out_len,
                    struct remote_info *out, struct err *err);
    /* Exactly `len` bytes at `offset` of the object that has this tag ("" = any).
     * errors RC_NOT_FOUND (or it is another object now) ... */
    enum rc (*get)(struct remote *r, const char *key, const char *tag, uint64_t offset, void *data,
                   size_t len, struct err *err);
    /* The whole object.  errors RC_EXISTS ... */
    enum rc (*put)(struct remote_upload *u, const void *data, size_t len, struct err *err);
    enum rc (*begin)(struct remote_upload *u, struct err *err); /* sets u->id */
    /* number: from 1.  Sets u->tags[number - 1].  Several at a time. */
    enum rc (*put_part)(struct remote_upload *u, unsigned number, const void *data, size_t len,
                        char tag[REMOTE_TAG_MAX], struct err *err);
    enum rc (*finish)(struct remote_upload *u, struct err *err);
    void (*abandon)(struct remote_upload *u);
    /* A page of a listing: remote_listed() for each.  marker: where it begins, "" at first; set to
     * where the next begins, "" when there is none. */
    enum rc (*list)(struct remote *r, const char *prefix, struct buf *marker, struct buf *listed,
                    struct err *err);
    enum rc (*remove)(struct remote *r, const char *key, struct err *err);
    void (*sweep)(struct remote *r);      /* what dead writers have left; once, with a listing */
    void (*after_fork)(struct remote *r); /* of what is the driver's own; may be NULL */
    void (*free)(struct remote *r);
};

struct remote {
    struct backend base;
    const struct remote_ops *ops;
    struct http_client *http;
    struct pool *pool;
    struct ahead *ahead;
    char *prefix; /* "" or with a slash at its end */
    atomic_bool swept;
};

/* The first member of such a table: a driver names itself, the rest is done here. */
#define REMOTE_BACKEND_OPS(name_)                                                                  \
    {                                                                                              \
        .name = (name_), .pace = {REMOTE_PART, REMOTE_READS}, .begin = remote_begin,               \
        .append = remote_append, .commit = remote_commit, .abort = remote_abort,                   \
        .open = remote_open, .read = remote_read, .close = remote_close, .stat = remote_stat,      \
        .open_known = remote_open_known, .list = remote_list, .remove = remote_remove,             \
        .before_fork = remote_before_fork, .after_fork = remote_after_fork, .free = remote_free    \
    }
enum rc remote_begin(struct backend *b, const char *key, struct backend_upload **out,
                     struct err *err);
enum rc remote_append(struct backend_upload *base, const void *data, size_t len, struct err *err);
enum rc remote_commit(struct backend_upload *base, struct err *err);
void remote_abort(struct backend_upload *base);
enum rc remote_open(struct backend *b, const char *key, struct backend_object **out,
                    struct err *err);
enum rc remote_read(struct backend_object *base, uint64_t offset, void *data, size_t len,
                    struct err *err);
void remote_close(struct backend_object *base);
enum rc remote_stat(struct backend *b, const char *key, struct backend_info *out, struct err *err);
enum rc remote_open_known(struct backend *b, const char *key, const struct backend_info *info,
                          struct backend_object **out, struct err *err);
enum rc remote_list(struct backend *b, const char *prefix, backend_visit *visit, void *arg,
                    struct err *err);
enum rc remote_remove(struct backend *b, const char *key, struct err *err);
void remote_before_fork(struct backend *b);
void remote_after_fork(struct backend *b);
void remote_free(struct backend *b);

/* Set up the common part of a driver's struct.
 * prefix   of all keys, without slashes at its ends; borrowed
 * http     kept
 * errors   RC_INVALID (the prefix is no key) */
enum rc remote_init(struct remote *r, const struct remote_ops *ops, const char *prefix,
                    struct http_client *http, struct err *err);
/* The other way round, all but the struct. */
void remote_done(struct remote *r);

/* Note an object of a listing by the name that the server has for it; one that is no key of ours is
 * left out. */
void remote_listed(const struct remote *r, const char *name, uint64_t size, struct buf *listed);

/* Code, message and server's time of an <Error>, as S3 and Azure both write it; "" where there is
 * none. */
struct remote_error {
    char code[64];
    char message[200];
    char server_time[40];
};
void remote_read_error(const char *data, size_t len, struct remote_error *out);

/* From the answer to a ranged GET: how large the object is.  errors RC_CORRUPT */
enum rc remote_size(const struct http_response *a, uint64_t *out, struct err *err);

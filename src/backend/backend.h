/* Object storage: named byte strings that are written once, whole, and never changed.
 *
 * A driver (backend/drivers.h) implements `struct backend_ops`; everybody else uses the functions
 * below, which check arguments and add context to errors.  Every driver passes the one conformance
 * suite, tests/unit/backend/conformance.c, unchanged.
 *
 * What every driver promises: an object is there whole or not at all, for every reader, also after
 * a crash of the writer or of the machine; the first writer of a key wins and a later one is told
 * so, unless it asked to replace: then readers see the old object or the new one, never a mixture;
 * on RC_OK of put and commit the object survives a loss of power, and every listing and opening
 * that begins afterwards, anywhere, sees it.
 *
 * Threads: a backend may be shared, and everything may be called at the same time on it; an upload
 * belongs to one thread; an object may be read by several threads.  A child of fork() calls
 * backend_after_fork() first.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BACKEND_KEY_MAX 512  /* bytes, without the NUL */
#define BACKEND_PART_MAX 255 /* of these between two slashes */
#define BACKEND_TAG_MAX 256  /* bytes of a tag, with the NUL */

struct backend;
struct backend_upload;
struct backend_object;

/* Called for every object of a listing.  An error ends the listing and is what it returns. */
typedef enum rc backend_visit(void *arg, const char *key, uint64_t size, struct err *err);

/* Which content a key has: it has another tag, or another size, once it was replaced. */
struct backend_info {
    uint64_t size;
    char tag[BACKEND_TAG_MAX]; /* "" where the storage gives none */
};

/* How a storage is read fast: so many bytes at once, in so many reads at the same time. */
struct backend_pace {
    size_t bytes;
    unsigned reads;
};

/* A driver's side.  Arguments have been checked; `err` gets the bare cause. */
struct backend_ops {
    const char *name;         /* "local" */
    struct backend_pace pace; /* 0: nothing in particular */
    enum rc (*begin)(struct backend *b, const char *key, struct backend_upload **out,
                     struct err *err);
    enum rc (*append)(struct backend_upload *u, const void *data, size_t len, struct err *err);
    enum rc (*commit)(struct backend_upload *u, struct err *err);
    void (*abort)(struct backend_upload *u); /* also after commit: frees */
    enum rc (*open)(struct backend *b, const char *key, struct backend_object **out,
                    struct err *err);
    enum rc (*read)(struct backend_object *o, uint64_t offset, void *data, size_t len,
                    struct err *err);
    void (*close)(struct backend_object *o);
    enum rc (*stat)(struct backend *b, const char *key, struct backend_info *out, struct err *err);
    /* An object that was looked at, without asking again; NULL: as open. */
    enum rc (*open_known)(struct backend *b, const char *key, const struct backend_info *info,
                          struct backend_object **out, struct err *err);
    /* See backend_forget(); NULL: nothing is kept. */
    bool (*forget)(struct backend_object *o, uint64_t offset, size_t len);
    enum rc (*list)(struct backend *b, const char *prefix, backend_visit *visit, void *arg,
                    struct err *err);
    enum rc (*remove)(struct backend *b, const char *key, struct err *err);
    void (*before_fork)(struct backend *b); /* may be NULL, as the next */
    void (*after_fork)(struct backend *b);
    void (*free)(struct backend *b);
};

struct backend {
    const struct backend_ops *ops; /* first member of every driver's own struct */
};

struct backend_upload {
    struct backend *backend;
    char key[BACKEND_KEY_MAX + 1];
    uint64_t size; /* bytes appended */
    bool replace;  /* what the commit finds under this key makes way */
};

struct backend_object {
    struct backend *backend;
    char key[BACKEND_KEY_MAX + 1];
    uint64_t size;
};

/* Whether a key may be used: 1..BACKEND_KEY_MAX bytes of [A-Za-z0-9._-] in parts separated by
 * single slashes, no part beginning with a dot or longer than BACKEND_PART_MAX.
 * errors RC_INVALID */
enum rc backend_check_key(const char *key, struct err *err);

struct backend_pace backend_pace(const struct backend *b);

/* Write an object of known content.
 * data    `len` bytes, borrowed; may be NULL when len is 0
 * errors  RC_EXISTS (an object of this key is there and stays), RC_INVALID (key), RC_NO_SPACE,
 *         RC_DENIED, RC_UNAVAILABLE, RC_IO */
enum rc backend_put(struct backend *b, const char *key, const void *data, size_t len,
                    struct err *err);

/* Write an object piece by piece; nothing is to be seen of it before backend_commit().
 * out     the caller's: ends with backend_abortp(), which after a commit only frees
 * errors  as for backend_put(); RC_EXISTS may come here or at the commit */
enum rc backend_begin(struct backend *b, const char *key, struct backend_upload **out,
                      struct err *err);
enum rc backend_append(struct backend_upload *u, const void *data, size_t len, struct err *err);
enum rc backend_commit(struct backend_upload *u, struct err *err);
void backend_abortp(struct backend_upload **u);
/* Before the commit: an object of this key, there or not, is replaced in one step. */
void backend_replaces(struct backend_upload *u);

/* Open an object for reading; it stays readable when it is removed or replaced meanwhile, or reads
 * fail with RC_NOT_FOUND.
 * out     the caller's, backend_closep(); its size is in `size`
 * errors  RC_NOT_FOUND, RC_INVALID (key), RC_DENIED, RC_UNAVAILABLE, RC_IO */
enum rc backend_open(struct backend *b, const char *key, struct backend_object **out,
                     struct err *err);
/* Read exactly `len` bytes at `offset`.
 * errors  RC_CORRUPT (the object ends before), RC_NOT_FOUND (removed), RC_UNAVAILABLE, RC_IO */
enum rc backend_read(struct backend_object *o, uint64_t offset, void *data, size_t len,
                     struct err *err);
void backend_closep(struct backend_object **o);
/* What was read there is not what it should be: drop it where it is cached.  Whether there was
 * something to drop, so that another read may give other bytes. */
bool backend_forget(struct backend_object *o, uint64_t offset, size_t len);

/* Look at an object without reading it.  errors as for backend_open() */
enum rc backend_stat(struct backend *b, const char *key, struct backend_info *out, struct err *err);
/* backend_open() of what backend_stat() has shown, or of what is otherwise known (then without a
 * tag), if it can be without asking again: then it is the reads that fail with RC_NOT_FOUND when it
 * is not there, or is another one. */
enum rc backend_open_known(struct backend *b, const char *key, const struct backend_info *info,
                           struct backend_object **out, struct err *err);

/* Every object whose key begins with `prefix` ("" = all), in no particular order.  Objects that
 * come or go meanwhile may or may not be seen. */
enum rc backend_list(struct backend *b, const char *prefix, backend_visit *visit, void *arg,
                     struct err *err);

/* Remove an object for good.  errors RC_NOT_FOUND, RC_INVALID, RC_DENIED, RC_UNAVAILABLE, RC_IO */
enum rc backend_remove(struct backend *b, const char *key, struct err *err);

/* Before a fork() whose child will use the backend: waits for what is done unasked. */
void backend_before_fork(struct backend *b);
/* In a child of fork(), before it uses a backend of its parent's: connections and threads stay the
 * parent's.  No call may have been running when it forked; uploads of the parent are not its own.
 */
void backend_after_fork(struct backend *b);

void backend_freep(struct backend **b);

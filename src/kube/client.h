/* The API server of a cluster: requests, lists, watches.
 *
 * Objects are JSON as the server has them; whoever asks takes from them what it needs.  Requests
 * that may be repeated are, with the pauses that the server asks for (net/http.h).  The token file
 * is read anew for each.
 *
 * Threads: a client is shared.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "kube/config.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

struct kube;

/* config  borrowed
 * out     the caller's, kube_closep(); nothing is connected before the first request
 * errors  RC_INVALID (certificates) */
enum rc kube_open(const struct kube_config *config, struct kube **out, struct err *err);
void kube_closep(struct kube **client);

/* ---- one object ---- */

enum kube_verb {
    KUBE_GET,
    KUBE_CREATE,
    KUBE_REPLACE, /* errors RC_CONFLICT when its resourceVersion is not the present one */
    KUBE_DELETE,
    KUBE_MERGE_PATCH, /* RFC 7396 */
    KUBE_JSON_PATCH,  /* RFC 6902 */
    KUBE_APPLY,       /* server-side; needs ?fieldManager=...&force=... in the path */
};

/* path    "/api/v1/namespaces/NS/pods/NAME", with a query and escaped as an URL is
 * body    JSON, NULL for those that have none; borrowed
 * out     the answer; the caller's, json_docp(); NULL when nobody wants it
 * errors  RC_NOT_FOUND, RC_EXISTS (create), RC_CONFLICT, RC_DENIED, RC_INVALID, RC_UNAVAILABLE,
 *         RC_TIMEOUT, RC_CORRUPT: with the server's own message */
enum rc kube_do(struct kube *k, enum kube_verb verb, const char *path, yyjson_mut_doc *body,
                yyjson_doc **out, struct err *err);

/* ---- many ---- */

#define KUBE_VERSION_MAX 64

struct kube_collection {
    const char *path;   /* "/api/v1/namespaces/NS/pods" */
    const char *labels; /* a label selector, or NULL */
    const char *fields; /* a field selector, or NULL */
    unsigned page;      /* objects that are asked for at once: bounds our memory; 0 = 50 */
    unsigned watch_s;   /* a watch lasts so long; 0 = 300 */
};

/* Told of objects, borrowed for the call.  An error ends the list or watch and is what it returns.
 */
typedef enum rc kube_take(void *arg, yyjson_val *object, struct err *err);

/* All objects, page by page.
 * out_version  the collection's, for kube_watch(): at least KUBE_VERSION_MAX bytes
 * errors       RC_CONFLICT (it took so long that the server forgot where we were: begin again), as
 *              for kube_do() */
enum rc kube_list(struct kube *k, const struct kube_collection *c, kube_take *take, void *arg,
                  char *out_version, struct err *err);

enum kube_change { KUBE_ADDED, KUBE_MODIFIED, KUBE_DELETED };

struct kube_watcher {
    enum rc (*change)(void *arg, enum kube_change change, yyjson_val *object, struct err *err);
    void *arg;
    const atomic_bool *cancel; /* may be NULL */
};

/* What changes from `version` on, until the server ends the watch, as it does after `watch_s`.
 * version  in and out: where to go on, also when it was not RC_OK
 * errors   RC_CONFLICT (the version is too old: list again), RC_CANCELLED, RC_UNAVAILABLE (the
 *          connection broke: go on), as for kube_do() */
enum rc kube_watch(struct kube *k, const struct kube_collection *c, const struct kube_watcher *w,
                   char *version, struct err *err);

/* ---- for ever ---- */

/* All members of it may be NULL but `take`. */
struct kube_follower {
    /* A list begins, for what it finds `take` is called; it has ended: what was not among it is no
     * longer there.  Both may come again at any time. */
    void (*begin)(void *arg);
    void (*end)(void *arg);
    /* gone: it was deleted, or does not match the selectors any more */
    void (*take)(void *arg, bool gone, yyjson_val *object);
    /* A list or watch has failed; the next try is in `pause_ns`. */
    void (*trouble)(void *arg, const struct err *why, uint64_t pause_ns);
    void *arg;
    uint64_t pause_max_ns; /* between tries; 0 = 30 s */
};

/* List, watch, and go on with that whatever happens, until `cancel` is set.  Pauses between tries
 * grow and are spread at random; RC_CONFLICT is no failure but another list. */
void kube_follow(struct kube *k, const struct kube_collection *c, const struct kube_follower *f,
                 const atomic_bool *cancel);

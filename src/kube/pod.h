/* A pod, as little of it as an agent needs.  Threads: a struct belongs to one thread. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <yyjson.h>

#define KUBE_POD_CONTAINERS_MAX                                                                    \
    64 /* containers of a pod that are looked at; more are RC_TOO_BIG                              \
        */

struct kube_pod_container {
    char *name;
    char *id; /* "containerd://..."; NULL before it exists */
    bool running;
    bool has_signal; /* its spec names DYN_CHECKPOINT_SIGNAL_FILE */
};

/* Labels and annotations of these prefixes are kept, no others. */
#define KUBE_POD_PREFIX_CONTRACT "nvidia.com/"
#define KUBE_POD_PREFIX_OURS "chrek.io/"

struct kube_pod_pair {
    char *key, *value;
};

struct kube_pod {
    char *name, *name_space, *uid, *version;
    char *node;   /* NULL before it is scheduled */
    char *ip;     /* NULL before it has one */
    bool running; /* its phase */
    bool ready;   /* its condition */
    bool ending;  /* it is being deleted */
    struct kube_pod_container *containers;
    size_t n_containers;
    struct kube_pod_pair *labels, *annotations;
    size_t n_labels, n_annotations;
};

/* out     the caller's, kube_pod_done()
 * errors  RC_CORRUPT (it has no name, namespace or uid), RC_TOO_BIG */
enum rc kube_pod_read(yyjson_val *object, struct kube_pod *out, struct err *err);
void kube_pod_done(struct kube_pod *p);

/* NULL when it is not there; borrowed. */
const char *kube_pod_label(const struct kube_pod *p, const char *key);
const char *kube_pod_annotation(const struct kube_pod *p, const char *key);

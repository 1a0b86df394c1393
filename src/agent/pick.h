/* Which pods, which container of them, under which name: the contract's rules (3, 11).
 * Threads: safe. */
#pragma once

#include "base/err.h"
#include "cri/cri.h"
#include "kube/pod.h"

#include <stdbool.h>

#define PICK_SELECTOR "nvidia.com/checkpoint-source=true"
#define PICK_CONTAINER_ANNOTATION "chrek.io/container"

/* Whether it asks for a checkpoint and may be frozen now. */
bool pick_pod(const struct kube_pod *p, const char *node);

/* The container: the annotated one, `main`, the only one, or the only one that names a signal file.
 * out     borrowed from the pod
 * errors  RC_INVALID: why none can be chosen, and what to do */
enum rc pick_container(const struct kube_pod *p, const struct kube_pod_container **out,
                       struct err *err);

/* The checkpoint's id: the pod's label, else the container's DYN_CHECKPOINT_HASH, else the last
 * element of its DYN_CHECKPOINT_LOCATION.
 * out     borrowed from the pod or the container
 * errors  RC_INVALID: there is none, or it cannot be one */
enum rc pick_id(const struct kube_pod *p, const struct cri_container *c, const char **out,
                struct err *err);

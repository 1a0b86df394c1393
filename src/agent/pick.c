#include "agent/pick.h"

#include "codec/name.h"

#include <string.h>

bool pick_pod(const struct kube_pod *p, const char *node)
{
    const char *source = kube_pod_label(p, "nvidia.com/checkpoint-source");
    return source && strcmp(source, "true") == 0 && p->node && strcmp(p->node, node) == 0 &&
           p->running && p->ready && !p->ending;
}

static const struct kube_pod_container *named(const struct kube_pod *p, const char *name)
{
    for (size_t i = 0; p->containers && i < p->n_containers; i++)
        if (strcmp(p->containers[i].name, name) == 0)
            return &p->containers[i];
    return NULL;
}

static const struct kube_pod_container *only_with_signal(const struct kube_pod *p)
{
    const struct kube_pod_container *found = NULL;
    for (size_t i = 0; i < p->n_containers; i++) {
        if (!p->containers[i].has_signal)
            continue;
        if (found)
            return NULL;
        found = &p->containers[i];
    }
    return found;
}

enum rc pick_container(const struct kube_pod *p, const struct kube_pod_container **out,
                       struct err *err)
{
    const char *asked = kube_pod_annotation(p, PICK_CONTAINER_ANNOTATION);
    const struct kube_pod_container *c = named(p, asked ? asked : "main");
    if (!c && asked)
        return err_set(err, RC_INVALID,
                       "the pod has no container '%.100s', which its annotation "
                       "" PICK_CONTAINER_ANNOTATION " names",
                       asked);
    if (!c && p->n_containers == 1)
        c = &p->containers[0];
    if (!c)
        c = only_with_signal(p);
    if (!c)
        return err_set(err, RC_INVALID,
                       "the pod has %zu containers, and none is called main; name the one to be "
                       "captured by the annotation " PICK_CONTAINER_ANNOTATION,
                       p->n_containers);
    *out = c;
    return RC_OK;
}

enum rc pick_id(const struct kube_pod *p, const struct cri_container *c, const char **out,
                struct err *err)
{
    const char *id = kube_pod_label(p, "nvidia.com/checkpoint-hash");
    const char *from = "the label nvidia.com/checkpoint-hash";
    if (!id || !*id) {
        id = cri_container_env(c, "DYN_CHECKPOINT_HASH");
        from = "DYN_CHECKPOINT_HASH";
    }
    if (!id || !*id) {
        const char *location = cri_container_env(c, "DYN_CHECKPOINT_LOCATION");
        const char *slash = location ? strrchr(location, '/') : NULL;
        id = slash ? slash + 1 : location;
        from = "DYN_CHECKPOINT_LOCATION";
    }
    if (!id || !*id)
        return err_set(err, RC_INVALID,
                       "nothing names the checkpoint: set the label nvidia.com/checkpoint-hash, or "
                       "DYN_CHECKPOINT_HASH in the container");
    enum rc rc = name_check_id(id, err);
    if (rc)
        return err_ctx(err, rc, "%s", from);
    *out = id;
    return RC_OK;
}

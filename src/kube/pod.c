#include "kube/pod.h"

#include "base/mem.h"
#include "codec/json.h"

#include <stdlib.h>
#include <string.h>

#define PAIRS_MAX 256

static bool is_kept(const char *key)
{
    return strncmp(key, KUBE_POD_PREFIX_CONTRACT, strlen(KUBE_POD_PREFIX_CONTRACT)) == 0 ||
           strncmp(key, KUBE_POD_PREFIX_OURS, strlen(KUBE_POD_PREFIX_OURS)) == 0;
}

static void read_pairs(yyjson_val *from, struct kube_pod_pair **out, size_t *out_n)
{
    size_t i, max;
    yyjson_val *key, *value;
    *out = mem_zalloc(PAIRS_MAX * sizeof(**out));
    yyjson_obj_foreach(from, i, max, key, value)
    {
        if (is_kept(yyjson_get_str(key)) && yyjson_is_str(value) && *out_n < PAIRS_MAX)
            (*out)[(*out_n)++] = (struct kube_pod_pair){mem_strdup(yyjson_get_str(key)),
                                                        mem_strdup(yyjson_get_str(value))};
    }
    *out = mem_realloc(*out, (*out_n + 1) * sizeof(**out));
}

static bool names_signal_file(yyjson_val *spec)
{
    size_t i, max;
    yyjson_val *env;
    yyjson_arr_foreach(yyjson_obj_get(spec, "env"), i, max, env)
    {
        if (strcmp(json_str(env, "name", ""), "DYN_CHECKPOINT_SIGNAL_FILE") == 0)
            return true;
    }
    return false;
}

static void read_container_status(yyjson_val *list, struct kube_pod_container *c)
{
    size_t i, max;
    yyjson_val *s;
    yyjson_arr_foreach(list, i, max, s)
    {
        const char *id = json_str(s, "containerID", NULL);
        if (strcmp(json_str(s, "name", ""), c->name) != 0)
            continue;
        c->id = mem_strdup(id && *id ? id : NULL);
        c->running = yyjson_obj_get(yyjson_obj_get(s, "state"), "running") != NULL;
    }
}

static enum rc read_containers(yyjson_val *spec, yyjson_val *status, struct kube_pod *p,
                               struct err *err)
{
    yyjson_val *list = yyjson_obj_get(spec, "containers"), *c;
    size_t i, max, n = yyjson_arr_size(list);
    if (n > KUBE_POD_CONTAINERS_MAX)
        return err_set(err, RC_TOO_BIG, "it has %zu containers, at most %d are looked at", n,
                       KUBE_POD_CONTAINERS_MAX);
    p->containers = mem_zalloc((n + 1) * sizeof(*p->containers));
    yyjson_arr_foreach(list, i, max, c)
    {
        struct kube_pod_container *k = &p->containers[p->n_containers++];
        k->name = mem_strdup(json_str(c, "name", ""));
        k->has_signal = names_signal_file(c);
        read_container_status(yyjson_obj_get(status, "containerStatuses"), k);
    }
    return RC_OK;
}

static bool is_ready(yyjson_val *status)
{
    size_t i, max;
    yyjson_val *c;
    yyjson_arr_foreach(yyjson_obj_get(status, "conditions"), i, max, c)
    {
        if (strcmp(json_str(c, "type", ""), "Ready") == 0)
            return strcmp(json_str(c, "status", ""), "True") == 0;
    }
    return false;
}

static char *text_of(yyjson_val *object, const char *key)
{
    const char *s = json_str(object, key, NULL);
    return mem_strdup(s && *s ? s : NULL);
}

enum rc kube_pod_read(yyjson_val *object, struct kube_pod *out, struct err *err)
{
    CLEANUP(kube_pod_done) struct kube_pod p = {.name = NULL};
    yyjson_val *meta = yyjson_obj_get(object, "metadata"), *spec = yyjson_obj_get(object, "spec");
    yyjson_val *status = yyjson_obj_get(object, "status");
    p.name = text_of(meta, "name");
    p.name_space = text_of(meta, "namespace");
    p.uid = text_of(meta, "uid");
    p.version = text_of(meta, "resourceVersion");
    if (!p.name || !p.name_space || !p.uid)
        return err_set(err, RC_CORRUPT, "a pod without name, namespace or uid");
    p.node = text_of(spec, "nodeName");
    p.ip = text_of(status, "podIP");
    p.running = strcmp(json_str(status, "phase", ""), "Running") == 0;
    p.ready = is_ready(status);
    p.ending = yyjson_obj_get(meta, "deletionTimestamp") != NULL;
    read_pairs(yyjson_obj_get(meta, "labels"), &p.labels, &p.n_labels);
    read_pairs(yyjson_obj_get(meta, "annotations"), &p.annotations, &p.n_annotations);
    enum rc rc = read_containers(spec, status, &p, err);
    if (rc)
        return err_ctx(err, rc, "pod %.100s/%.200s", p.name_space, p.name);
    *out = p;
    p = (struct kube_pod){.name = NULL};
    return RC_OK;
}

static void free_pairs(struct kube_pod_pair *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(list[i].key);
        free(list[i].value);
    }
    free(list);
}

void kube_pod_done(struct kube_pod *p)
{
    free(p->name);
    free(p->name_space);
    free(p->uid);
    free(p->version);
    free(p->node);
    free(p->ip);
    for (size_t i = 0; i < p->n_containers; i++) {
        free(p->containers[i].name);
        free(p->containers[i].id);
    }
    free(p->containers);
    free_pairs(p->labels, p->n_labels);
    free_pairs(p->annotations, p->n_annotations);
    *p = (struct kube_pod){.name = NULL};
}

static const char *value_of(const struct kube_pod_pair *list, size_t n, const char *key)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].key, key) == 0)
            return list[i].value;
    return NULL;
}

const char *kube_pod_label(const struct kube_pod *p, const char *key)
{
    return value_of(p->labels, p->n_labels, key);
}

const char *kube_pod_annotation(const struct kube_pod *p, const char *key)
{
    return value_of(p->annotations, p->n_annotations, key);
}

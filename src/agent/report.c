#include "agent/report.h"

#include "agent/log.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/num.h"
#include "codec/json.h"
#include "kube/event.h"
#include "net/http.h"

#include <stdio.h>
#include <string.h>

#define STATUS "chrek.io/checkpoint-status"
#define CONTAINER "chrek.io/checkpoint-container"
#define ATTEMPTS "chrek.io/checkpoint-attempts"
#define ID "chrek.io/checkpoint-id"
#define MESSAGE "chrek.io/checkpoint-message"
#define RESTORE "chrek.io/restore-"
#define ATTEMPTS_MAX 1000000

static const char *const states[] = {[REPORT_IN_PROGRESS] = "in_progress",
                                     [REPORT_COMPLETED] = "completed",
                                     [REPORT_FAILED] = "failed"};

struct report report_read(const struct kube_pod *p, const char *container_id)
{
    struct report r = {.state = REPORT_NONE};
    const char *about = kube_pod_annotation(p, CONTAINER);
    const char *status = kube_pod_annotation(p, STATUS);
    const char *attempts = kube_pod_annotation(p, ATTEMPTS);
    uint64_t n = 0;
    if (!about || strcmp(about, container_id) != 0 || !status)
        return r;
    for (size_t i = REPORT_IN_PROGRESS; i < ARRAY_LEN(states); i++)
        if (strcmp(status, states[i]) == 0)
            r.state = (enum report_state)i;
    if (attempts && num_parse_u64(attempts, 0, ATTEMPTS_MAX, &n, NULL) == RC_OK)
        r.attempts = (unsigned)n;
    return r;
}

static char *path_of(const struct kube_pod *p)
{
    return mem_asprintf("/api/v1/namespaces/%s/pods/%s", p->name_space, p->name);
}

/* null removes an annotation of an earlier attempt. */
static void set(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key, const char *value)
{
    if (value)
        (void)yyjson_mut_obj_add_strcpy(doc, o, key, value);
    else
        (void)yyjson_mut_obj_add_null(doc, o, key);
}

/* A patch of the pod; *out: its annotations, to be filled in. */
static yyjson_mut_doc *patch_of(const struct kube_pod *p, yyjson_mut_val **out)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_val *meta = yyjson_mut_obj_add_obj(doc, root, "metadata");
    (void)yyjson_mut_obj_add_str(doc, meta, "uid", p->uid); /* another pod's is refused */
    *out = yyjson_mut_obj_add_obj(doc, meta, "annotations");
    return doc;
}

enum rc report_restore(struct kube *k, const struct kube_pod *p, const char *container_id,
                       const char *id, const char *message, struct err *err)
{
    yyjson_mut_val *o = NULL;
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = patch_of(p, &o);
    CLEANUP(mem_freep) char *path = path_of(p);
    set(doc, o, RESTORE "status", states[message ? REPORT_FAILED : REPORT_COMPLETED]);
    set(doc, o, RESTORE "container", container_id);
    set(doc, o, RESTORE "id", id);
    set(doc, o, RESTORE "message", message);
    return kube_do(k, KUBE_MERGE_PATCH, path, doc, NULL, err);
}

enum rc report_write(struct kube *k, const struct kube_pod *p, const struct report_news *news,
                     struct err *err)
{
    yyjson_mut_val *o = NULL;
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = patch_of(p, &o);
    CLEANUP(mem_freep) char *path = path_of(p);
    char attempts[16];
    (void)snprintf(attempts, sizeof(attempts), "%u", news->attempts);
    set(doc, o, STATUS, states[news->state]);
    set(doc, o, CONTAINER, news->container_id);
    set(doc, o, ATTEMPTS, attempts);
    set(doc, o, ID, news->id);
    set(doc, o, MESSAGE, news->message);
    return kube_do(k, KUBE_MERGE_PATCH, path, doc, NULL, err);
}

void report_event(struct kube *k, const struct kube_pod *p, const char *node, bool warning,
                  const char *reason, const char *message)
{
    struct err err = ERR_INIT;
    const struct kube_event e = {.warning = warning,
                                 .reason = reason,
                                 .message = message,
                                 .component = "chrek-agent",
                                 .node = node,
                                 .name = p->name,
                                 .name_space = p->name_space,
                                 .uid = p->uid};
    if (kube_event_post(k, &e, &err) != RC_OK)
        log_warn("event not posted", "namespace", p->name_space, "pod", p->name, "reason", reason,
                 "error", err.msg, NULL);
}

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

enum rc report_write(struct kube *k, const struct kube_pod *p, const struct report_news *news,
                     struct err *err)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    CLEANUP(mem_freep) char *path = path_of(p);
    char attempts[16];
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_val *meta = yyjson_mut_obj_add_obj(doc, root, "metadata");
    (void)yyjson_mut_obj_add_str(doc, meta, "uid", p->uid); /* another pod's is refused */
    yyjson_mut_val *o = yyjson_mut_obj_add_obj(doc, meta, "annotations");
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

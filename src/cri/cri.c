#include "cri/cri.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "codec/json.h"
#include "net/grpc.h"

#include <cri.pb-c.h>
#include <stdlib.h>
#include <string.h>

#define SERVICE "/runtime.v1.RuntimeService/"
#define ANSWER_MAX ((size_t)16 << 20) /* what containerd allows */
#define TIMEOUT_NS (10 * CLOCK_S)
#define PID_MAX 4194304

struct cri {
    struct http_client *http;
    uint64_t timeout_ns;
};

enum rc cri_open(const char *socket, uint64_t timeout_ns, struct cri **out, struct err *err)
{
    const char *path = strncmp(socket, "unix://", 7) == 0 ? socket + 7 : socket;
    if (path[0] != '/')
        return err_set(err, RC_INVALID, "container runtime '%.200s': not the path of a socket",
                       socket);
    struct http_options o = {.unix_socket = path, .direct = true, .h2c = true, .tries = 4};
    CLEANUP(cri_closep) struct cri *c = mem_zalloc(sizeof(*c));
    c->timeout_ns = timeout_ns ? timeout_ns : TIMEOUT_NS;
    enum rc rc = http_open(&o, &c->http, err);
    if (!rc)
        *out = STEAL(c);
    return rc;
}

void cri_closep(struct cri **client)
{
    struct cri *c = STEAL(*client);
    if (!c)
        return;
    http_closep(&c->http);
    free(c);
}

/* Send a question that may be asked twice. */
static enum rc ask(struct cri *c, const char *method, const ProtobufCMessage *question,
                   struct buf *out, struct err *err)
{
    CLEANUP(buf_done) struct buf message = BUF_INIT;
    size_t len = protobuf_c_message_get_packed_size(question);
    uint8_t *to = buf_room(&message, len + 1); /* an empty message is one, too */
    if (!to)
        return err_set(err, RC_TOO_BIG, "the question is too long");
    (void)protobuf_c_message_pack(question, to);
    struct grpc_call call = {.method = method,
                             .message = to,
                             .len = len,
                             .repeat = true,
                             .deadline = clock_now() + c->timeout_ns};
    out->max = ANSWER_MAX;
    enum rc rc = grpc_do(c->http, &call, out, err);
    return rc ? err_ctx(err, rc, "ask the container runtime") : RC_OK;
}

static const uint8_t *bytes(const struct buf *b)
{
    return (const uint8_t *)buf_str(b);
}

/* ---- version ---- */

enum rc cri_version(struct cri *c, struct cri_version *out, struct err *err)
{
    Runtime__V1__VersionRequest question;
    CLEANUP(buf_done) struct buf answer = BUF_INIT;
    runtime__v1__version_request__init(&question);
    enum rc rc = ask(c, SERVICE "Version", &question.base, &answer, err);
    if (rc)
        return rc;
    Runtime__V1__VersionResponse *v =
        runtime__v1__version_response__unpack(NULL, answer.len, bytes(&answer));
    if (!v)
        return err_set(err, RC_CORRUPT, "the container runtime's version makes no sense");
    out->name = mem_strdup(v->runtime_name);
    out->version = mem_strdup(v->runtime_version);
    runtime__v1__version_response__free_unpacked(v, NULL);
    return RC_OK;
}

void cri_version_done(struct cri_version *v)
{
    free(v->name);
    free(v->version);
    *v = (struct cri_version){.name = NULL};
}

/* ---- container ---- */

static const char *find(Runtime__V1__Pair *const *list, size_t n, const char *key)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i]->key, key) == 0)
            return list[i]->value;
    return NULL;
}

static enum cri_state state_of(Runtime__V1__ContainerState state)
{
    switch ((int)state) {
    case RUNTIME__V1__CONTAINER_STATE__CONTAINER_CREATED:
        return CRI_CREATED;
    case RUNTIME__V1__CONTAINER_STATE__CONTAINER_RUNNING:
        return CRI_RUNNING;
    case RUNTIME__V1__CONTAINER_STATE__CONTAINER_EXITED:
        return CRI_EXITED;
    default:
        return CRI_UNKNOWN;
    }
}

/* containerd and CRI-O both put a document "info" with these two into their verbose answer. */
static enum rc read_info(const char *text, struct cri_container *k, struct err *err)
{
    if (!text)
        return RC_OK;
    enum rc rc =
        json_parse("the container runtime's information", text, strlen(text), &k->info, err);
    if (rc)
        return rc;
    yyjson_val *root = yyjson_doc_get_root(k->info), *spec = yyjson_obj_get(root, "runtimeSpec");
    uint64_t pid = json_u64(root, "pid", 0);
    if (pid > PID_MAX)
        return err_set(err, RC_CORRUPT, "the container runtime says that its process is %ju",
                       (uintmax_t)pid);
    k->pid = (pid_t)pid;
    k->spec = yyjson_is_obj(spec) ? spec : NULL;
    return RC_OK;
}

static enum rc read_status(const Runtime__V1__ContainerStatusResponse *r, const char *id,
                           struct cri_container *k, struct err *err)
{
    const Runtime__V1__ContainerStatus *s = r->status;
    if (!s || strcmp(s->id, id) != 0)
        return err_set(err, RC_CORRUPT, "the container runtime speaks of another container");
    k->id = mem_strdup(s->id);
    k->name = mem_strdup(s->metadata ? s->metadata->name : "");
    k->image = mem_strdup(s->image && s->image->image[0] ? s->image->image : s->image_ref);
    k->pod_uid = mem_strdup(find(s->labels, s->n_labels, "io.kubernetes.pod.uid"));
    k->pod_name = mem_strdup(find(s->labels, s->n_labels, "io.kubernetes.pod.name"));
    k->pod_namespace = mem_strdup(find(s->labels, s->n_labels, "io.kubernetes.pod.namespace"));
    k->state = state_of(s->state);
    return read_info(find(r->info, r->n_info, "info"), k, err);
}

enum rc cri_container(struct cri *c, const char *id, struct cri_container *out, struct err *err)
{
    Runtime__V1__ContainerStatusRequest question;
    CLEANUP(buf_done) struct buf answer = BUF_INIT;
    CLEANUP(cri_container_done) struct cri_container k = {.id = NULL};
    runtime__v1__container_status_request__init(&question);
    question.container_id = (char *)(uintptr_t)id;
    question.verbose = 1;
    enum rc rc = ask(c, SERVICE "ContainerStatus", &question.base, &answer, err);
    if (rc)
        return err_ctx(err, rc, "container '%.80s'", id);
    Runtime__V1__ContainerStatusResponse *r =
        runtime__v1__container_status_response__unpack(NULL, answer.len, bytes(&answer));
    rc = r ? read_status(r, id, &k, err)
           : err_set(err, RC_CORRUPT, "the container runtime's answer makes no sense");
    if (r)
        runtime__v1__container_status_response__free_unpacked(r, NULL);
    if (rc)
        return err_ctx(err, rc, "container '%.80s'", id);
    *out = k;
    k = (struct cri_container){.id = NULL};
    return RC_OK;
}

void cri_container_done(struct cri_container *k)
{
    free(k->id);
    free(k->name);
    free(k->image);
    free(k->pod_uid);
    free(k->pod_name);
    free(k->pod_namespace);
    json_docp(&k->info);
    *k = (struct cri_container){.id = NULL};
}

/* ---- all ---- */

enum rc cri_running(struct cri *c, char ***out, struct err *err)
{
    Runtime__V1__ListContainersRequest question;
    Runtime__V1__ContainerFilter filter;
    Runtime__V1__ContainerStateValue state;
    CLEANUP(buf_done) struct buf answer = BUF_INIT;
    runtime__v1__list_containers_request__init(&question);
    runtime__v1__container_filter__init(&filter);
    runtime__v1__container_state_value__init(&state);
    state.state = RUNTIME__V1__CONTAINER_STATE__CONTAINER_RUNNING;
    filter.state = &state;
    question.filter = &filter;
    enum rc rc = ask(c, SERVICE "ListContainers", &question.base, &answer, err);
    if (rc)
        return rc;
    Runtime__V1__ListContainersResponse *r =
        runtime__v1__list_containers_response__unpack(NULL, answer.len, bytes(&answer));
    if (!r)
        return err_set(err, RC_CORRUPT, "the container runtime's list makes no sense");
    char **ids = mem_zalloc((r->n_containers + 1) * sizeof(*ids));
    for (size_t i = 0; i < r->n_containers; i++)
        ids[i] = mem_strdup(r->containers[i]->id);
    runtime__v1__list_containers_response__free_unpacked(r, NULL);
    *out = ids;
    return RC_OK;
}

void cri_ids_free(char **ids)
{
    for (char **p = ids; p && *p; p++)
        free(*p);
    free(ids);
}

const char *cri_container_env(const struct cri_container *k, const char *name)
{
    yyjson_val *list = yyjson_obj_get(yyjson_obj_get(k->spec, "process"), "env"), *item;
    size_t i, max, len = strlen(name);
    const char *found = NULL;
    yyjson_arr_foreach(list, i, max, item)
    {
        const char *text = yyjson_get_str(item);
        if (text && strncmp(text, name, len) == 0 && text[len] == '=')
            found = text + len + 1; /* the last one counts, as for a program's own getenv() */
    }
    return found;
}

const char *cri_bare_id(const char *id)
{
    const char *scheme = strstr(id, "://");
    return scheme ? scheme + 3 : id;
}

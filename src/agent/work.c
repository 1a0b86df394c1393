#include "agent/work.h"

#include "agent/answer.h"
#include "agent/log.h"
#include "agent/worker.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/json.h"
#include "store/vault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the request ---- */

static void add(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key, const char *value)
{
    if (value)
        (void)yyjson_mut_obj_add_str(doc, o, key, value);
}

static void copy(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key, yyjson_val *value)
{
    if (yyjson_is_arr(value))
        (void)yyjson_mut_obj_add_val(doc, o, key, yyjson_val_mut_copy(doc, value));
}

void work_format(const struct work *w, struct buf *out)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    add(doc, o, "store", w->store);
    add(doc, o, "id", w->id);
    add(doc, o, "criu", w->criu);
    (void)yyjson_mut_obj_add_int(doc, o, "pid", w->pid);
    (void)yyjson_mut_obj_add_bool(doc, o, "plain", w->plain);
    (void)yyjson_mut_obj_add_str(doc, o, "codec", compress_name(w->codec));
    (void)yyjson_mut_obj_add_uint(doc, o, "ghost_limit", w->ghost_limit);
    (void)yyjson_mut_obj_add_uint(doc, o, "timeout_ns", w->timeout_ns);
    add(doc, o, "node", w->container.node);
    add(doc, o, "container_id", w->container.container_id);
    add(doc, o, "pod_name", w->container.pod_name);
    add(doc, o, "pod_namespace", w->container.pod_namespace);
    add(doc, o, "pod_ip", w->container.pod_ip);
    add(doc, o, "image", w->container.image);
    add(doc, o, "external", w->external);
    copy(doc, o, "masked", yyjson_obj_get(yyjson_obj_get(w->spec, "linux"), "maskedPaths"));
    copy(doc, o, "readonly", yyjson_obj_get(yyjson_obj_get(w->spec, "linux"), "readonlyPaths"));
    copy(doc, o, "mounts", yyjson_obj_get(w->spec, "mounts"));
    json_write(doc, out);
}

/* The texts of an array; NULL-terminated, the caller's (free). */
static const char **texts_of(yyjson_val *array)
{
    size_t i, max, n = 0;
    yyjson_val *v;
    const char **list = mem_zalloc((yyjson_arr_size(array) + 1) * sizeof(*list));
    yyjson_arr_foreach(array, i, max, v)
    {
        if (yyjson_is_str(v))
            list[n++] = yyjson_get_str(v);
    }
    return list;
}

static void read_oci(yyjson_val *o, struct engine_container *c)
{
    yyjson_val *mounts = yyjson_obj_get(o, "mounts"), *v;
    size_t i, max, n = yyjson_arr_size(mounts);
    struct engine_oci_mount *list = mem_zalloc((n + 1) * sizeof(*list));
    c->masked_paths = texts_of(yyjson_obj_get(o, "masked"));
    c->readonly_paths = texts_of(yyjson_obj_get(o, "readonly"));
    c->mounts = list;
    yyjson_arr_foreach(mounts, i, max, v)
    {
        const char *to = json_str(v, "destination", NULL);
        if (to)
            list[c->n_mounts++] =
                (struct engine_oci_mount){.destination = to,
                                          .source = json_str(v, "source", NULL),
                                          .type = json_str(v, "type", NULL),
                                          .options = texts_of(yyjson_obj_get(v, "options"))};
    }
}

static void free_borrowed(const void *list)
{
    free((void *)(uintptr_t)list);
}

void work_done(struct work *w)
{
    for (size_t i = 0; i < w->container.n_mounts; i++)
        free_borrowed(w->container.mounts[i].options);
    free_borrowed(w->container.mounts);
    free_borrowed(w->container.masked_paths);
    free_borrowed(w->container.readonly_paths);
    *w = (struct work){.store = NULL};
}

enum rc work_parse(const char *text, size_t len, yyjson_doc **doc, struct work *out,
                   struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *d = NULL;
    enum rc rc = json_parse("the request", text, len, &d, err);
    if (rc)
        return rc;
    yyjson_val *o = yyjson_doc_get_root(d);
    struct work w = {.store = json_str(o, "store", NULL),
                     .id = json_str(o, "id", NULL),
                     .criu = json_str(o, "criu", NULL),
                     .pid = (pid_t)json_u64(o, "pid", 0),
                     .plain = json_bool(o, "plain", false),
                     .ghost_limit = (uint32_t)json_u64(o, "ghost_limit", 0),
                     .timeout_ns = json_u64(o, "timeout_ns", 0),
                     .external = json_str(o, "external", NULL),
                     .container = {.node = json_str(o, "node", NULL),
                                   .container_id = json_str(o, "container_id", NULL),
                                   .pod_name = json_str(o, "pod_name", NULL),
                                   .pod_namespace = json_str(o, "pod_namespace", NULL),
                                   .pod_ip = json_str(o, "pod_ip", NULL),
                                   .image = json_str(o, "image", NULL)}};
    if (!w.store || !w.id || w.pid <= 0)
        return err_set(err, RC_CORRUPT, "the request names no store, id or process");
    rc = compress_parse(json_str(o, "codec", ""), &w.codec, err);
    if (rc)
        return rc;
    read_oci(o, &w.container);
    *out = w;
    *doc = STEAL(d);
    return RC_OK;
}

/* ---- the answer ---- */

static void format_result(enum rc rc, const struct err *err, const struct work_result *r,
                          struct buf *out)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = answer_new(rc, err);
    yyjson_mut_val *o = yyjson_mut_doc_get_root(doc);
    (void)yyjson_mut_obj_add_uint(doc, o, "total_bytes", r->total_bytes);
    (void)yyjson_mut_obj_add_uint(doc, o, "memory_bytes", r->memory_bytes);
    (void)yyjson_mut_obj_add_uint(doc, o, "freeze_ns", r->freeze_ns);
    (void)yyjson_mut_obj_add_uint(doc, o, "total_ns", r->total_ns);
    json_write(doc, out);
}

static enum rc parse_result(const struct buf *text, struct work_result *out, struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    enum rc rc = answer_parse(text, &doc, err);
    if (rc)
        return rc;
    yyjson_val *o = yyjson_doc_get_root(doc);
    *out = (struct work_result){.total_bytes = json_u64(o, "total_bytes", 0),
                                .memory_bytes = json_u64(o, "memory_bytes", 0),
                                .freeze_ns = json_u64(o, "freeze_ns", 0),
                                .total_ns = json_u64(o, "total_ns", 0)};
    return RC_OK;
}

/* ---- the worker ---- */

static void on_warning(void *arg, const char *text)
{
    const struct work *w = arg;
    log_warn("capture", "checkpoint", w->id, "warning", text, NULL);
}

/* The words between commas; NULL-terminated. */
static char **words(const char *text)
{
    char **list = NULL;
    CLEANUP(mem_freep) char *copy_of = mem_strdup(text);
    char *save = NULL;
    for (char *w = copy_of ? strtok_r(copy_of, ", ", &save) : NULL; w;
         w = strtok_r(NULL, ", ", &save))
        metadata_list_add(&list, w);
    return list;
}

static void words_freep(char ***list)
{
    for (char **w = *list; w && *w; w++)
        free(*w);
    free(STEAL(*list));
}

static enum rc capture(struct work *w, struct work_result *out, struct err *err)
{
    CLEANUP(store_freep) struct store *store = NULL;
    CLEANUP(mem_freep) char *criu = mem_strdup(w->criu);
    CLEANUP(words_freep) char **external = words(w->external);
    CLEANUP(cancel_done) struct cancel cancel = CANCEL_INIT;
    struct engine_outcome o;
    uint64_t begun = clock_now();
    enum rc rc = criu ? RC_OK : engine_find_criu(&criu, err);
    if (!rc)
        rc = cancel_init(&cancel, err);
    if (!rc)
        rc = store_open(w->store, &store, err);
    if (rc)
        return rc;
    w->container.external = (const char *const *)external;
    struct engine engine = {
        .criu = criu, .warn = on_warning, .arg = w, .cancel = &cancel, .by_signal = true};
    struct engine_checkpoint_request req = {.store = store,
                                            .id = w->id,
                                            .pid = w->pid,
                                            .container = &w->container,
                                            .plain = w->plain,
                                            .codec = w->codec,
                                            .ghost_limit = w->ghost_limit,
                                            .keep_limit = ENGINE_KEEP_ALL,
                                            .timeout_ns = w->timeout_ns};
    rc = engine_checkpoint(&engine, &req, &o, err);
    if (rc)
        return rc;
    *out = (struct work_result){.total_bytes = o.total_bytes,
                                .memory_bytes = o.pages_bytes,
                                .freeze_ns = o.freeze_ns,
                                .total_ns = clock_now() - begun};
    return RC_OK;
}

int work_main(int in, int out)
{
    struct err err = ERR_INIT;
    CLEANUP(work_done) struct work w = {.store = NULL};
    struct work_result result = {0};
    size_t len = 0;
    CLEANUP(mem_freep) char *text = mem_alloc(WORKER_MESSAGE_MAX);
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(buf_done) struct buf answer = BUF_INIT;
    enum rc rc = sys_read_full(in, text, WORKER_MESSAGE_MAX, &len, &err);
    if (!rc)
        rc = work_parse(text, len, &doc, &w, &err);
    if (!rc)
        rc = capture(&w, &result, &err);
    format_result(rc, &err, &result, &answer);
    return sys_write_all(out, answer.data, answer.len, &err) ? 1 : 0;
}

/* ---- starting it ---- */

enum rc work_run(const struct work *w, const atomic_bool *stop, struct work_result *out,
                 struct err *err)
{
    CLEANUP(buf_done) struct buf request = {.max = WORKER_MESSAGE_MAX};
    CLEANUP(buf_done) struct buf answer = {.max = WORKER_MESSAGE_MAX};
    const struct worker job = {.command = WORK_COMMAND, .request = &request, .stop = stop};
    work_format(w, &request);
    enum rc rc = worker_run(&job, &answer, err);
    return rc ? rc : parse_result(&answer, out, err);
}

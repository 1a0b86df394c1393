#include "exchange/describe.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "codec/json.h"
#include "codec/sha256.h"

#include <stdlib.h>
#include <string.h>

#define NEVER "0001-01-01T00:00:00Z"

void documents_done(struct documents *d)
{
    buf_done(&d->config);
    buf_done(&d->spec);
    buf_done(&d->status);
}

/* ---- reading ---- */

static yyjson_doc *parse(const struct buf *text)
{
    return text->len ? yyjson_read(buf_str(text), text->len, 0) : NULL;
}

static void take(char **field, const char *value)
{
    if (!*field && value && *value)
        *field = mem_strdup(value);
}

static yyjson_val *root_of(yyjson_doc *doc)
{
    return doc ? yyjson_doc_get_root(doc) : NULL;
}

const char *describe_engine(const struct documents *d)
{
    CLEANUP(json_docp) yyjson_doc *spec = parse(&d->spec);
    yyjson_val *notes = yyjson_obj_get(root_of(spec), "annotations");
    const char *manager = json_str(notes, "io.container.manager", "");
    if (strcmp(manager, "libpod") == 0)
        return "podman";
    if (strcmp(manager, "cri-o") == 0)
        return "cri-o";
    return d->config.len && d->spec.len ? "containerd" : "criu";
}

static void read_config(yyjson_val *root, struct metadata *m)
{
    const char *made = json_str(root, "checkpointedTime", NULL);
    take(&m->container_id, json_str(root, "id", NULL));
    take(&m->name, json_str(root, "name", NULL));
    take(&m->image, json_str(root, "rootfsImageName", NULL));
    take(&m->image, json_str(root, "rootfsImage", NULL));
    take(&m->created_at, made && strcmp(made, NEVER) != 0 ? made : NULL);
}

static void read_command(yyjson_val *process, struct metadata *m)
{
    yyjson_val *args = yyjson_obj_get(process, "args"), *v;
    size_t i, max, n = yyjson_arr_size(args);
    if (m->command || n == 0 || n > METADATA_LIST_MAX)
        return;
    m->command = mem_zalloc((n + 1) * sizeof(*m->command));
    n = 0;
    yyjson_arr_foreach(args, i, max, v)
    {
        if (yyjson_is_str(v))
            m->command[n++] = mem_strdup(yyjson_get_str(v));
    }
}

static void read_spec(yyjson_val *root, struct metadata *m)
{
    static const char *const pods[] = {"io.kubernetes.pod.name", "io.kubernetes.cri.sandbox-name",
                                       "io.kubernetes.cri-o.KubeName"};
    static const char *const spaces[] = {"io.kubernetes.pod.namespace",
                                         "io.kubernetes.cri.sandbox-namespace",
                                         "io.kubernetes.cri-o.Namespace"};
    yyjson_val *notes = yyjson_obj_get(root, "annotations");
    yyjson_val *process = yyjson_obj_get(root, "process");
    for (size_t i = 0; i < ARRAY_LEN(pods); i++) {
        take(&m->pod_name, json_str(notes, pods[i], NULL));
        take(&m->pod_namespace, json_str(notes, spaces[i], NULL));
    }
    take(&m->cwd, json_str(process, "cwd", NULL));
    read_command(process, m);
}

static void read_status(yyjson_val *root, struct metadata *m)
{
    yyjson_val *labels = yyjson_obj_get(root, "labels");
    take(&m->pod_name, json_str(labels, "io.kubernetes.pod.name", NULL));
    take(&m->pod_namespace, json_str(labels, "io.kubernetes.pod.namespace", NULL));
    take(&m->image, json_str(root, "image_ref", NULL));
}

static enum rc check(const struct buf *text, yyjson_doc *doc, const char *name, struct err *err)
{
    return text->len && !yyjson_is_obj(root_of(doc))
               ? err_set(err, RC_CORRUPT, "its '%s' is no JSON object", name)
               : RC_OK;
}

enum rc describe_read(const struct documents *d, struct metadata *m, struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *config = parse(&d->config);
    CLEANUP(json_docp) yyjson_doc *spec = parse(&d->spec);
    CLEANUP(json_docp) yyjson_doc *status = parse(&d->status);
    enum rc rc = check(&d->config, config, "config.dump", err);
    if (!rc)
        rc = check(&d->spec, spec, "spec.dump", err);
    if (!rc)
        rc = check(&d->status, status, "status.dump", err);
    if (rc)
        return rc;
    read_status(root_of(status), m);
    read_spec(root_of(spec), m);
    read_config(root_of(config), m);
    return RC_OK;
}

/* ---- writing ---- */

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

char *describe_name(const struct metadata *m)
{
    return mem_strdup(m->name && *m->name ? m->name : or_empty(m->checkpoint_id));
}

/* An id as engines have them: its own, or one that is always the same for this checkpoint. */
static void container_id(const struct metadata *m, char out[SHA256_HEX_LEN + 1])
{
    uint8_t digest[SHA256_LEN];
    CLEANUP(mem_freep)
    char *text = mem_asprintf("%s %s", or_empty(m->checkpoint_id), or_empty(m->created_at));
    sha256_of(text, strlen(text), digest);
    sha256_hex(digest, out);
}

static void write_config(const struct metadata *m, const char *id, struct buf *out)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    CLEANUP(mem_freep) char *name = describe_name(m);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    (void)yyjson_mut_obj_add_str(doc, o, "id", id);
    (void)yyjson_mut_obj_add_str(doc, o, "name", name);
    (void)yyjson_mut_obj_add_str(doc, o, "rootfsImage", or_empty(m->image));
    (void)yyjson_mut_obj_add_str(doc, o, "rootfsImageName", or_empty(m->image));
    (void)yyjson_mut_obj_add_str(doc, o, "runtime", "criu");
    (void)yyjson_mut_obj_add_str(doc, o, "createdTime", m->created_at ? m->created_at : NEVER);
    (void)yyjson_mut_obj_add_str(doc, o, "checkpointedTime", m->created_at ? m->created_at : NEVER);
    (void)yyjson_mut_obj_add_str(doc, o, "restoredTime", NEVER);
    (void)yyjson_mut_obj_add_bool(doc, o, "restored", false);
    json_write(doc, out);
}

static void write_spec(const struct metadata *m, struct buf *out)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc), *process = yyjson_mut_obj(doc);
    yyjson_mut_val *args = yyjson_mut_arr(doc), *fs = yyjson_mut_obj(doc);
    yyjson_mut_val *notes = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    (void)yyjson_mut_obj_add_str(doc, o, "ociVersion", "1.0.2");
    (void)yyjson_mut_obj_add_val(doc, o, "process", process);
    (void)yyjson_mut_obj_add_val(doc, process, "args", args);
    for (char **c = m->command; c && *c; c++)
        (void)yyjson_mut_arr_add_str(doc, args, *c);
    (void)yyjson_mut_obj_add_str(doc, process, "cwd", m->cwd && *m->cwd ? m->cwd : "/");
    (void)yyjson_mut_obj_add_val(doc, o, "root", fs);
    (void)yyjson_mut_obj_add_str(doc, fs, "path", "rootfs");
    (void)yyjson_mut_obj_add_val(doc, o, "annotations", notes);
    if (m->pod_name)
        (void)yyjson_mut_obj_add_str(doc, notes, "io.kubernetes.cri.sandbox-name", m->pod_name);
    if (m->pod_namespace)
        (void)yyjson_mut_obj_add_str(doc, notes, "io.kubernetes.cri.sandbox-namespace",
                                     m->pod_namespace);
    json_write(doc, out);
}

static void write_status(const struct metadata *m, const char *id, struct buf *out)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    CLEANUP(mem_freep) char *name = describe_name(m);
    yyjson_mut_val *o = yyjson_mut_obj(doc), *meta = yyjson_mut_obj(doc);
    yyjson_mut_val *labels = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    (void)yyjson_mut_obj_add_str(doc, o, "id", id);
    (void)yyjson_mut_obj_add_val(doc, o, "metadata", meta);
    (void)yyjson_mut_obj_add_str(doc, meta, "name", name);
    (void)yyjson_mut_obj_add_val(doc, o, "labels", labels);
    if (m->pod_name)
        (void)yyjson_mut_obj_add_str(doc, labels, "io.kubernetes.pod.name", m->pod_name);
    if (m->pod_namespace)
        (void)yyjson_mut_obj_add_str(doc, labels, "io.kubernetes.pod.namespace", m->pod_namespace);
    json_write(doc, out);
}

void describe_write(const struct metadata *m, struct documents *out)
{
    char id[SHA256_HEX_LEN + 1];
    container_id(m, id);
    const char *own = m->container_id && *m->container_id ? m->container_id : id;
    write_config(m, own, &out->config);
    write_spec(m, &out->spec);
    write_status(m, own, &out->status);
}

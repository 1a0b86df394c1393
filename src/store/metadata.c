#include "store/metadata.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "codec/json.h"
#include "store/metadata_shape.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const stream_names[] = {"none", "pipe", "tty"};

/* Every string member, by key, so that reading, writing and freeing cannot disagree. */
struct field {
    const char *key;
    size_t offset;
};
#define FIELD(name)                                                                                \
    {                                                                                              \
#name, offsetof(struct metadata, name)                                                     \
    }
static const struct field contract_strings[] = {
    FIELD(checkpoint_id),    FIELD(created_at), FIELD(source_node),   FIELD(source_pod_ip),
    FIELD(container_id),     FIELD(pod_name),   FIELD(pod_namespace), FIELD(image),
    FIELD(rootfs_diff_path), FIELD(upper_dir)};
#define BARE_STRINGS 8 /* the first of these tell nothing of the program */
static const struct field chrek_strings[] = {
    FIELD(chrek_version), FIELD(criu_version), FIELD(kernel),   FIELD(arch),
    FIELD(cpu_model),     FIELD(cpu_flags),    FIELD(instance), FIELD(key),
    FIELD(name),          FIELD(parent_id),    FIELD(cwd),      FIELD(notify)};

static char **string_at(const struct metadata *m, const struct field *f)
{
    return (char **)((uintptr_t)m + f->offset);
}

/* ---- writing ---- */

static void add(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key, const char *value)
{
    (void)yyjson_mut_obj_add_str(doc, o, key, value ? value : "");
}

static void add_some(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key, const char *value)
{
    if (value && *value)
        (void)yyjson_mut_obj_add_str(doc, o, key, value);
}

static yyjson_mut_val *add_obj(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key)
{
    yyjson_mut_val *v = yyjson_mut_obj(doc);
    (void)yyjson_mut_obj_add_val(doc, o, key, v);
    return v;
}

static yyjson_mut_val *add_arr(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key)
{
    yyjson_mut_val *v = yyjson_mut_arr(doc);
    (void)yyjson_mut_obj_add_val(doc, o, key, v);
    return v;
}

static void write_criu_options(const struct metadata *m, yyjson_mut_doc *doc, yyjson_mut_val *root)
{
    yyjson_mut_val *o = add_obj(doc, root, "criu_options");
    (void)yyjson_mut_obj_add_bool(doc, o, "tcp_established", m->tcp_established);
    (void)yyjson_mut_obj_add_bool(doc, o, "tcp_close", m->tcp_close);
    (void)yyjson_mut_obj_add_bool(doc, o, "shell_job", m->shell_job);
    (void)yyjson_mut_obj_add_bool(doc, o, "file_locks", m->file_locks);
    (void)yyjson_mut_obj_add_bool(doc, o, "leave_running", m->leave_running);
    (void)yyjson_mut_obj_add_bool(doc, o, "link_remap", m->link_remap);
    (void)yyjson_mut_obj_add_bool(doc, o, "ext_masters", m->ext_masters);
}

static void write_contract(const struct metadata *m, yyjson_mut_doc *doc, yyjson_mut_val *o)
{
    add(doc, o, "checkpoint_id", m->checkpoint_id);
    add(doc, o, "created_at", m->created_at);
    add(doc, o, "source_node", m->source_node);
    add_some(doc, o, "source_pod_ip", m->source_pod_ip);
    add(doc, o, "container_id", m->container_id);
    add(doc, o, "pod_name", m->pod_name);
    add(doc, o, "pod_namespace", m->pod_namespace);
    add(doc, o, "image", m->image);
    (void)yyjson_mut_obj_add_sint(doc, o, "pid", m->pid);
    add_some(doc, o, "rootfs_diff_path", m->rootfs_diff_path);
    add_some(doc, o, "upper_dir", m->upper_dir);
    (void)yyjson_mut_obj_add_bool(doc, o, "has_rootfs_diff", m->has_rootfs_diff);
    (void)yyjson_mut_obj_add_bool(doc, o, "has_deleted_files", m->has_deleted_files);
    metadata_place_write(&m->place, doc, o); /* of a box: empty lists */
    write_criu_options(m, doc, o);
}

static void write_streams(const struct metadata *m, yyjson_mut_doc *doc, yyjson_mut_val *o)
{
    yyjson_mut_val *list = add_arr(doc, o, "streams");
    for (int i = 0; i < 3; i++) {
        yyjson_mut_val *s = yyjson_mut_arr_add_obj(doc, list);
        add(doc, s, "kind", stream_names[m->streams[i]]);
        add_some(doc, s, "key", m->stream_key[i]);
    }
}

static void write_program(const struct metadata *m, yyjson_mut_doc *doc, yyjson_mut_val *o)
{
    (void)yyjson_mut_obj_add_uint(doc, o, "generation", m->generation);
    (void)yyjson_mut_obj_add_sint(doc, o, "root_pid", m->root_pid);
    if (m->command) {
        yyjson_mut_val *list = add_arr(doc, o, "command");
        for (char **c = m->command; *c; c++)
            (void)yyjson_mut_arr_add_str(doc, list, *c);
    }
    write_streams(m, doc, o);
    (void)yyjson_mut_obj_add_bool(doc, o, "private_net", m->private_net);
    if (m->container)
        (void)yyjson_mut_obj_add_bool(doc, o, "container", true);
    (void)yyjson_mut_obj_add_bool(doc, o, "has_shm", m->has_shm);
    (void)yyjson_mut_obj_add_bool(doc, o, "host_shm", m->host_shm);
    yyjson_mut_val *labels = add_obj(doc, o, "labels");
    for (size_t i = 0; i < m->n_labels; i++)
        add(doc, labels, m->labels[i].key, m->labels[i].value);
    yyjson_mut_val *timings = add_obj(doc, o, "timings_ns");
    for (size_t i = 0; i < m->n_timings; i++)
        (void)yyjson_mut_obj_add_uint(doc, timings, m->timings[i].step, m->timings[i].ns);
}

static void write_chrek(const struct metadata *m, bool bare, yyjson_mut_doc *doc,
                        yyjson_mut_val *root)
{
    yyjson_mut_val *o = add_obj(doc, root, "chrek");
    uint64_t format = m->gpu ? 4 : m->key ? 3 : m->packed ? 2 : 1;
    (void)yyjson_mut_obj_add_uint(doc, o, "format", format);
    for (size_t i = 0; i < (bare ? BARE_STRINGS : ARRAY_LEN(chrek_strings)); i++)
        add_some(doc, o, chrek_strings[i].key, *string_at(m, &chrek_strings[i]));
    if (!bare)
        write_program(m, doc, o);
    (void)yyjson_mut_obj_add_uint(doc, o, "freeze_ns", m->freeze_ns);
    if (m->sync_ns && !bare)
        (void)yyjson_mut_obj_add_uint(doc, o, "sync_ns", m->sync_ns);
    (void)yyjson_mut_obj_add_uint(doc, o, "pages_bytes", m->pages_bytes);
    (void)yyjson_mut_obj_add_uint(doc, o, "total_bytes", m->total_bytes);
    if (!m->packed)
        return;
    (void)yyjson_mut_obj_add_bool(doc, o, "packed", true);
    (void)yyjson_mut_obj_add_uint(doc, o, "zero_bytes", m->zero_bytes);
    (void)yyjson_mut_obj_add_uint(doc, o, "known_bytes", m->known_bytes);
    (void)yyjson_mut_obj_add_uint(doc, o, "packed_bytes", m->packed_bytes);
}

/* A reader that knows nothing of it would leave the program waiting for its GPU for ever. */
static void write_gpu(const struct metadata *m, yyjson_mut_doc *doc, yyjson_mut_val *root)
{
    if (!m->gpu)
        return;
    yyjson_mut_val *chrek = yyjson_mut_obj_get(root, "chrek");
    yyjson_mut_val *gpu = add_obj(doc, chrek, "gpu");
    gpu_facts_write(m->gpu, doc, gpu);
    yyjson_mut_val *list = add_arr(doc, gpu, "processes");
    for (size_t i = 0; i < m->n_gpu_pids; i++)
        (void)yyjson_mut_arr_add_sint(doc, list, m->gpu_pids[i]);
}

static void format(const struct metadata *m, bool bare, struct buf *out)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    write_contract(m, doc, root);
    write_chrek(m, bare, doc, root);
    write_gpu(m, doc, root);
    json_write(doc, out);
}

void metadata_format(const struct metadata *m, struct buf *out)
{
    format(m, false, out);
}

void metadata_format_bare(const struct metadata *m, struct buf *out)
{
    format(m, true, out);
}

/* ---- reading ---- */

static enum rc read_strings(struct metadata *m, yyjson_val *o, const struct field *fields, size_t n,
                            struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        yyjson_val *v = yyjson_obj_get(o, fields[i].key);
        if (!v || yyjson_is_null(v))
            continue;
        const char *s = yyjson_get_str(v);
        if (!s || strlen(s) != yyjson_get_len(v))
            return err_set(err, RC_CORRUPT, METADATA_NAME ": '%s' is no string", fields[i].key);
        *string_at(m, &fields[i]) = mem_strdup(s);
    }
    return RC_OK;
}

static enum rc read_contract(struct metadata *m, yyjson_val *o, struct err *err)
{
    yyjson_val *pid = yyjson_obj_get(o, "pid");
    m->pid = yyjson_is_int(pid) ? yyjson_get_sint(pid) : 0;
    m->has_rootfs_diff = json_bool(o, "has_rootfs_diff", false);
    m->has_deleted_files = json_bool(o, "has_deleted_files", false);
    yyjson_val *c = yyjson_obj_get(o, "criu_options");
    m->tcp_established = json_bool(c, "tcp_established", false);
    m->tcp_close = json_bool(c, "tcp_close", true);
    m->shell_job = json_bool(c, "shell_job", true);
    m->file_locks = json_bool(c, "file_locks", true);
    m->leave_running = json_bool(c, "leave_running", true);
    m->link_remap = json_bool(c, "link_remap", true);
    m->ext_masters = json_bool(c, "ext_masters", true);
    enum rc rc = metadata_place_read(o, &m->place, err);
    return rc ? err_ctx(err, rc, METADATA_NAME) : RC_OK;
}

static enum rc read_command(struct metadata *m, yyjson_val *list, struct err *err)
{
    size_t n = yyjson_arr_size(list);
    if (n == 0)
        return RC_OK;
    if (n > METADATA_LIST_MAX)
        return err_set(err, RC_CORRUPT, METADATA_NAME ": 'command' has %zu members", n);
    m->command = mem_zalloc((n + 1) * sizeof(*m->command));
    for (size_t i = 0; i < n; i++) {
        const char *s = yyjson_get_str(yyjson_arr_get(list, i));
        if (!s)
            return err_set(err, RC_CORRUPT, METADATA_NAME ": 'command' holds no strings");
        m->command[i] = mem_strdup(s);
    }
    return RC_OK;
}

static enum rc read_streams(struct metadata *m, yyjson_val *list, struct err *err)
{
    for (size_t i = 0; i < 3; i++) {
        yyjson_val *s = yyjson_arr_get(list, i);
        const char *kind = json_str(s, "kind", "none");
        size_t k = 0;
        while (k < ARRAY_LEN(stream_names) && strcmp(kind, stream_names[k]) != 0)
            k++;
        if (k == ARRAY_LEN(stream_names))
            return err_set(err, RC_CORRUPT, METADATA_NAME ": unknown stream '%.32s'", kind);
        m->streams[i] = (enum metadata_stream)k;
        m->stream_key[i] = mem_strdup(json_str(s, "key", NULL));
        if (k == METADATA_STREAM_PIPE && !m->stream_key[i])
            return err_set(err, RC_CORRUPT, METADATA_NAME ": a pipe without a key");
    }
    return RC_OK;
}

static enum rc read_pairs(struct metadata *m, yyjson_val *o, struct err *err)
{
    yyjson_val *labels = yyjson_obj_get(o, "labels"), *timings = yyjson_obj_get(o, "timings_ns");
    size_t n_labels = yyjson_obj_size(labels), n_timings = yyjson_obj_size(timings);
    if (n_labels > METADATA_LIST_MAX || n_timings > METADATA_LIST_MAX)
        return err_set(err, RC_CORRUPT, METADATA_NAME ": too many labels or timings");
    m->labels = mem_zalloc((n_labels + 1) * sizeof(*m->labels));
    m->timings = mem_zalloc((n_timings + 1) * sizeof(*m->timings));
    size_t i, max;
    yyjson_val *k, *v;
    yyjson_obj_foreach(labels, i, max, k, v)
    {
        const char *value = yyjson_get_str(v);
        m->labels[m->n_labels++] =
            (struct metadata_label){mem_strdup(yyjson_get_str(k)), mem_strdup(value ? value : "")};
    }
    yyjson_obj_foreach(timings, i, max, k, v)
    {
        m->timings[m->n_timings++] =
            (struct metadata_timing){mem_strdup(yyjson_get_str(k)), yyjson_get_uint(v)};
    }
    return RC_OK;
}

static enum rc read_gpu(struct metadata *m, yyjson_val *gpu, struct err *err)
{
    if (!yyjson_is_obj(gpu))
        return RC_OK;
    yyjson_val *list = yyjson_obj_get(gpu, "processes");
    size_t n = yyjson_arr_size(list);
    if (n < 1 || n > METADATA_LIST_MAX)
        return err_set(err, RC_CORRUPT, METADATA_NAME ": GPU state of %zu processes", n);
    m->gpu = mem_zalloc(sizeof(*m->gpu));
    m->gpu_pids = mem_zalloc(n * sizeof(*m->gpu_pids));
    for (size_t i = 0; i < n; i++) {
        yyjson_val *pid = yyjson_arr_get(list, i);
        if (!yyjson_is_int(pid) || yyjson_get_sint(pid) < 1)
            return err_set(err, RC_CORRUPT, METADATA_NAME ": GPU state of what is no process");
        m->gpu_pids[m->n_gpu_pids++] = yyjson_get_sint(pid);
    }
    enum rc rc = gpu_facts_read(gpu, m->gpu, err);
    return rc ? err_ctx(err, rc, METADATA_NAME) : RC_OK;
}

static enum rc read_chrek(struct metadata *m, yyjson_val *o, struct err *err)
{
    m->ours = true;
    m->format = json_u64(o, "format", 0);
    if (m->format < 1)
        return err_set(err, RC_CORRUPT, METADATA_NAME ": no format number");
    if (m->format > METADATA_FORMAT)
        return err_set(err, RC_UNSUPPORTED,
                       "made by a newer chrek (format %" PRIu64 ", this one reads up to %d)",
                       m->format, METADATA_FORMAT);
    enum rc rc = read_strings(m, o, chrek_strings, ARRAY_LEN(chrek_strings), err);
    if (!rc)
        rc = read_command(m, yyjson_obj_get(o, "command"), err);
    if (!rc)
        rc = read_streams(m, yyjson_obj_get(o, "streams"), err);
    if (!rc)
        rc = read_pairs(m, o, err);
    if (!rc)
        rc = read_gpu(m, yyjson_obj_get(o, "gpu"), err);
    m->generation = json_u64(o, "generation", 0);
    m->root_pid = (int64_t)json_u64(o, "root_pid", 0);
    m->private_net = json_bool(o, "private_net", false);
    m->container = json_bool(o, "container", false);
    m->has_shm = json_bool(o, "has_shm", false);
    m->host_shm = json_bool(o, "host_shm", false);
    m->freeze_ns = json_u64(o, "freeze_ns", 0);
    m->sync_ns = json_u64(o, "sync_ns", 0);
    m->pages_bytes = json_u64(o, "pages_bytes", 0);
    m->total_bytes = json_u64(o, "total_bytes", 0);
    m->packed = json_bool(o, "packed", false);
    m->zero_bytes = json_u64(o, "zero_bytes", 0);
    m->known_bytes = json_u64(o, "known_bytes", 0);
    m->packed_bytes = json_u64(o, "packed_bytes", 0);
    return rc;
}

enum rc metadata_parse(const char *text, size_t len, struct metadata *out, struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(metadata_done) struct metadata m = {0};
    enum rc rc = json_parse(METADATA_NAME, text, len, &doc, err);
    if (rc)
        return rc;
    yyjson_val *root = yyjson_doc_get_root(doc), *chrek = yyjson_obj_get(root, "chrek");
    rc = metadata_shape_check(root, err);
    if (!rc)
        rc = read_strings(&m, root, contract_strings, ARRAY_LEN(contract_strings), err);
    if (rc)
        return rc;
    rc = read_contract(&m, root, err);
    if (!rc && yyjson_is_obj(chrek))
        rc = read_chrek(&m, chrek, err);
    if (rc)
        return rc;
    *out = m;
    m = (struct metadata){0};
    return RC_OK;
}

void metadata_done(struct metadata *m)
{
    for (size_t i = 0; i < ARRAY_LEN(contract_strings); i++)
        free(*string_at(m, &contract_strings[i]));
    for (size_t i = 0; i < ARRAY_LEN(chrek_strings); i++)
        free(*string_at(m, &chrek_strings[i]));
    for (char **c = m->command; c && *c; c++)
        free(*c);
    free(m->command);
    for (int i = 0; i < 3; i++)
        free(m->stream_key[i]);
    for (size_t i = 0; i < m->n_labels; i++) {
        free(m->labels[i].key);
        free(m->labels[i].value);
    }
    free(m->labels);
    for (size_t i = 0; i < m->n_timings; i++)
        free(m->timings[i].step);
    free(m->timings);
    free(m->gpu);
    free(m->gpu_pids);
    metadata_place_done(&m->place);
    *m = (struct metadata){0};
}

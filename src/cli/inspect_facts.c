#include "base/compiler.h"
#include "base/term.h"
#include "cli/inspect.h"
#include "cli/text.h"

#include <inttypes.h>
#include <string.h>

static bool starts(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

void inspect_add_sizes(const struct manifest *m, struct inspect_sizes *out)
{
    for (size_t i = 0; m && i < m->n; i++) {
        const char *name = m->files[i].name;
        size_t len = strlen(name);
        uint64_t size = m->files[i].size;
        if (starts(name, "pages-"))
            out->memory += size;
        else if (starts(name, "rootfs-diff.tar"))
            out->rootfs += size;
        else if (starts(name, "tmpfs-"))
            out->shm += size;
        else if (len > 4 && strcmp(name + len - 4, ".img") == 0)
            out->images += size;
        else
            out->other += size;
    }
}

/* ---- for people ---- */

static void line(struct buf *out, const char *name, const char *text)
{
    if (!text || !*text)
        return;
    buf_addf(out, "%-12s", name);
    text_plain(out, text);
    buf_adds(out, "\n");
}

static void size_line(struct buf *out, const char *name, uint64_t bytes)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (!bytes)
        return;
    term_size(bytes, &text);
    buf_addf(out, "  %-18s %10s\n", name, buf_str(&text));
}

static void time_line(struct buf *out, const char *name, uint64_t ns)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    term_duration(ns, &text);
    buf_addf(out, "  %-18s %10s\n", name, buf_str(&text));
}

static void origin(const struct metadata *m, struct buf *out)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    buf_addf(&text, "%s, Linux %s, %s", m->source_node ? m->source_node : "unknown host",
             m->kernel ? m->kernel : "unknown", m->arch ? m->arch : "unknown");
    if (m->cpu_model)
        buf_addf(&text, ", %s", m->cpu_model);
    line(out, "made on", buf_str(&text));
    if (m->chrek_version) {
        CLEANUP(buf_done) struct buf by = BUF_INIT;
        buf_addf(&by, "chrek %s, CRIU %s", m->chrek_version,
                 m->criu_version ? m->criu_version : "unknown");
        line(out, "made by", buf_str(&by));
    }
}

static void pod(const struct metadata *m, struct buf *out)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (!m->pod_name || !*m->pod_name)
        return;
    buf_addf(&text, "%s/%s", m->pod_namespace ? m->pod_namespace : "", m->pod_name);
    line(out, "pod", buf_str(&text));
    line(out, "container", m->container_id);
    line(out, "image", m->image);
}

static const char *stream_name(enum metadata_stream s)
{
    return s == METADATA_STREAM_PIPE ? "pipe" : s == METADATA_STREAM_TTY ? "terminal" : "-";
}

static void identity(const struct metadata *m, const char *path, struct buf *out)
{
    CLEANUP(buf_done) struct buf command = BUF_INIT;
    CLEANUP(buf_done) struct buf age = BUF_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    line(out, "checkpoint", m->checkpoint_id);
    line(out, "directory", path);
    term_age(m->created_at, &age);
    buf_addf(&text, "%s (%s)", m->created_at ? m->created_at : "unknown", buf_str(&age));
    line(out, "created", buf_str(&text));
    text_words(&command, m->command, 400);
    line(out, "command", buf_str(&command));
    line(out, "in", m->cwd);
    line(out, "box", m->name);
    pod(m, out);
    origin(m, out);
    line(out, "restored of", m->parent_id);
    if (m->ours)
        buf_addf(out, "%-12s%" PRIu64 "\n", "generation", m->generation);
    if (m->ours)
        buf_addf(out, "%-12sstdin %s, stdout %s, stderr %s\n", "streams",
                 stream_name(m->streams[0]), stream_name(m->streams[1]),
                 stream_name(m->streams[2]));
    line(out, "network", m->private_net ? "private" : NULL);
    line(out, "notify", m->notify);
    line(out, "tcp", m->tcp_established ? "connections kept" : "connections to outside closed");
    for (size_t i = 0; i < m->n_labels; i++) {
        CLEANUP(buf_done) struct buf label = BUF_INIT;
        buf_addf(&label, "%s=%s", m->labels[i].key, m->labels[i].value);
        line(out, i ? "" : "labels", buf_str(&label));
    }
}

static void gpu(const struct metadata *m, struct buf *out)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (!m->gpu)
        return;
    buf_addf(&text, "%zu process%s, driver %s", m->n_gpu_pids, m->n_gpu_pids == 1 ? "" : "es",
             m->gpu->driver);
    line(out, "GPU state", buf_str(&text));
    for (size_t i = 0; i < m->gpu->n_devices; i++) {
        const struct gpu_device *d = &m->gpu->device[i];
        CLEANUP(buf_done) struct buf device = BUF_INIT;
        buf_addf(&device, "%s, ", d->name);
        term_size(d->memory_bytes, &device);
        buf_addf(&device, "%s, %s", d->mig ? ", MIG" : "", d->uuid);
        line(out, "", buf_str(&device));
    }
}

void inspect_people(const struct metadata *m, const struct manifest *manifest, const char *path,
                    struct buf *out)
{
    struct inspect_sizes s = {0};
    inspect_add_sizes(manifest, &s);
    identity(m, path, out);
    gpu(m, out);
    buf_adds(out, "\nSIZES\n");
    size_line(out, "memory", manifest && !m->packed ? s.memory : m->pages_bytes);
    if (m->packed) {
        size_line(out, "  zero", m->zero_bytes);
        size_line(out, "  known before", m->known_bytes);
        size_line(out, "  new, packed", m->packed_bytes);
    }
    size_line(out, "other images", s.images);
    size_line(out, "changed files", s.rootfs);
    size_line(out, "/dev/shm", s.shm);
    size_line(out, "metadata", s.other);
    size_line(out, "all", m->total_bytes);
    if (!m->ours)
        return;
    buf_adds(out, "\nTIMINGS\n");
    for (size_t i = 0; i < m->n_timings; i++)
        time_line(out, m->timings[i].step, m->timings[i].ns);
    time_line(out, "(frozen)", m->freeze_ns);
    if (m->sync_ns)
        time_line(out, "(waited for the disk)", m->sync_ns);
}

/* ---- for machines ---- */

static void add_text(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key, const char *text)
{
    if (text && *text)
        text_json(doc, o, key, text);
}

static yyjson_mut_val *add_object(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key)
{
    yyjson_mut_val *child = yyjson_mut_obj(doc);
    (void)yyjson_mut_obj_add_val(doc, o, key, child);
    return child;
}

static void add_files(const struct manifest *manifest, yyjson_mut_doc *doc, yyjson_mut_val *o)
{
    yyjson_mut_val *files = yyjson_mut_arr(doc);
    for (size_t i = 0; manifest && i < manifest->n; i++) {
        char digest[DIGEST_TEXT_LEN + 1];
        yyjson_mut_val *f = yyjson_mut_arr_add_obj(doc, files);
        digest_format(&manifest->files[i].digest, digest);
        text_json(doc, f, "name", manifest->files[i].name);
        (void)yyjson_mut_obj_add_uint(doc, f, "size", manifest->files[i].size);
        text_json(doc, f, "digest", digest);
    }
    (void)yyjson_mut_obj_add_val(doc, o, "files", files);
}

static void add_numbers(const struct metadata *m, const struct manifest *manifest,
                        yyjson_mut_doc *doc, yyjson_mut_val *o)
{
    struct inspect_sizes s = {0};
    inspect_add_sizes(manifest, &s);
    yyjson_mut_val *sizes = add_object(doc, o, "bytes");
    (void)yyjson_mut_obj_add_uint(doc, sizes, "memory",
                                  manifest && !m->packed ? s.memory : m->pages_bytes);
    if (m->packed) {
        (void)yyjson_mut_obj_add_uint(doc, sizes, "zero", m->zero_bytes);
        (void)yyjson_mut_obj_add_uint(doc, sizes, "known", m->known_bytes);
        (void)yyjson_mut_obj_add_uint(doc, sizes, "packed", m->packed_bytes);
    }
    (void)yyjson_mut_obj_add_uint(doc, sizes, "images", s.images);
    (void)yyjson_mut_obj_add_uint(doc, sizes, "rootfs_diff", s.rootfs);
    (void)yyjson_mut_obj_add_uint(doc, sizes, "shm", s.shm);
    (void)yyjson_mut_obj_add_uint(doc, sizes, "total", m->total_bytes);
    yyjson_mut_val *timings = add_object(doc, o, "timings_ns");
    for (size_t i = 0; i < m->n_timings; i++)
        (void)yyjson_mut_obj_add(timings, yyjson_mut_strcpy(doc, m->timings[i].step),
                                 yyjson_mut_uint(doc, m->timings[i].ns));
    (void)yyjson_mut_obj_add_uint(doc, o, "freeze_ns", m->freeze_ns);
    if (m->sync_ns)
        (void)yyjson_mut_obj_add_uint(doc, o, "sync_ns", m->sync_ns);
}

void inspect_json(const struct metadata *m, const struct manifest *manifest, const char *path,
                  yyjson_mut_doc *doc, yyjson_mut_val *o)
{
    text_json(doc, o, "id", m->checkpoint_id);
    text_json(doc, o, "path", path);
    text_json(doc, o, "created_at", m->created_at);
    text_json_list(doc, o, "command", m->command);
    add_text(doc, o, "cwd", m->cwd);
    add_text(doc, o, "name", m->name);
    add_text(doc, o, "parent_id", m->parent_id);
    (void)yyjson_mut_obj_add_uint(doc, o, "generation", m->generation);
    yyjson_mut_val *labels = add_object(doc, o, "labels");
    for (size_t i = 0; i < m->n_labels; i++)
        (void)yyjson_mut_obj_add(labels, yyjson_mut_strcpy(doc, m->labels[i].key),
                                 yyjson_mut_strcpy(doc, m->labels[i].value));
    yyjson_mut_val *host = add_object(doc, o, "host");
    add_text(doc, host, "name", m->source_node);
    add_text(doc, host, "kernel", m->kernel);
    add_text(doc, host, "arch", m->arch);
    add_text(doc, host, "cpu", m->cpu_model);
    add_text(doc, o, "chrek_version", m->chrek_version);
    add_text(doc, o, "criu_version", m->criu_version);
    add_text(doc, o, "pod_name", m->pod_name);
    add_text(doc, o, "pod_namespace", m->pod_namespace);
    add_text(doc, o, "container_id", m->container_id);
    add_text(doc, o, "image", m->image);
    add_text(doc, o, "notify", m->notify);
    (void)yyjson_mut_obj_add_bool(doc, o, "private_net", m->private_net);
    (void)yyjson_mut_obj_add_bool(doc, o, "tcp_established", m->tcp_established);
    yyjson_mut_val *streams = yyjson_mut_arr(doc);
    for (int i = 0; i < 3; i++)
        (void)yyjson_mut_arr_add_str(doc, streams, stream_name(m->streams[i]));
    (void)yyjson_mut_obj_add_val(doc, o, "streams", streams);
    if (m->gpu) {
        yyjson_mut_val *g = add_object(doc, o, "gpu");
        gpu_facts_write(m->gpu, doc, g);
        yyjson_mut_val *pids = yyjson_mut_arr(doc);
        for (size_t i = 0; i < m->n_gpu_pids; i++)
            (void)yyjson_mut_arr_add_sint(doc, pids, m->gpu_pids[i]);
        (void)yyjson_mut_obj_add_val(doc, g, "processes", pids);
    }
    add_numbers(m, manifest, doc, o);
    add_files(manifest, doc, o);
}

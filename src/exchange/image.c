#include "exchange/image.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/json.h"
#include "exchange/describe.h"
#include "exchange/tarball.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define MEDIA "application/vnd.oci.image."
#define DIGEST_MAX (sizeof("sha256:") + SHA256_HEX_LEN)

/* A blob of the layout. */
struct blob {
    const char *media;
    char digest[DIGEST_MAX];
    uint64_t size;
};

struct writing {
    int blobs; /* directory */
    const struct parts *parts;
    const struct export_options *o;
    char *name; /* of the container */
};

static void set_digest(struct blob *b, const uint8_t digest[SHA256_LEN])
{
    memcpy(b->digest, "sha256:", 7);
    sha256_hex(digest, b->digest + 7);
}

static const char *layer_media(enum export_compression c)
{
    static const char *const media[] = {[EXPORT_PLAIN] = MEDIA "layer.v1.tar",
                                        [EXPORT_GZIP] = MEDIA "layer.v1.tar+gzip",
                                        [EXPORT_ZSTD] = MEDIA "layer.v1.tar+zstd"};
    return media[c];
}

static enum rc write_layer(const struct writing *w, struct blob *out, char inside[DIGEST_MAX],
                           struct err *err)
{
    struct tarball t = {.size = 0};
    struct blob b = {.media = layer_media(w->o->compression)}, in;
    CLEANUP(fd_closep) int fd = sys_openat(w->blobs, ".layer", O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (fd < 0)
        return err_sys(err, "make the layer");
    enum rc rc = tarball_write(w->parts, fd, w->o->compression, w->o->done, &t, err);
    if (rc)
        return rc;
    if (sys_fsync(fd) < 0)
        return err_sys(err, "fsync the layer");
    b.size = t.size;
    set_digest(&b, t.digest);
    set_digest(&in, t.digest_inside);
    if (sys_rename(w->blobs, ".layer", b.digest + 7, 0) < 0)
        return err_sys(err, "rename the layer");
    memcpy(inside, in.digest, DIGEST_MAX);
    *out = b;
    return RC_OK;
}

static enum rc write_document(const struct writing *w, const char *media, yyjson_mut_doc *doc,
                              struct blob *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    uint8_t digest[SHA256_LEN];
    struct blob b = {.media = media};
    json_write(doc, &text);
    sha256_of(text.data, text.len, digest);
    set_digest(&b, digest);
    b.size = text.len;
    *out = b;
    return fs_write_atomic(w->blobs, b.digest + 7, text.data, text.len, 0644, err);
}

static yyjson_mut_val *descriptor(yyjson_mut_doc *doc, const struct blob *b)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    (void)yyjson_mut_obj_add_str(doc, o, "mediaType", b->media);
    (void)yyjson_mut_obj_add_str(doc, o, "digest", b->digest);
    (void)yyjson_mut_obj_add_uint(doc, o, "size", b->size);
    return o;
}

/* The machine's name as Go has it. */
static const char *architecture(const struct metadata *m)
{
    static const char *const names[][2] = {
        {"x86_64", "amd64"}, {"aarch64", "arm64"}, {"armv7l", "arm"}, {"i686", "386"}};
    for (size_t i = 0; m->arch && i < ARRAY_LEN(names); i++)
        if (strcmp(m->arch, names[i][0]) == 0)
            return names[i][1];
    return m->arch && *m->arch ? m->arch : "amd64";
}

/* The layer's digest in it makes it the config of this image alone. */
static enum rc write_config(const struct writing *w, const char *inside, struct blob *out,
                            struct err *err)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc), *fs = yyjson_mut_obj(doc);
    yyjson_mut_val *ids = yyjson_mut_arr(doc), *history = yyjson_mut_arr(doc);
    const struct metadata *m = &w->parts->meta;
    yyjson_mut_doc_set_root(doc, o);
    if (m->created_at)
        (void)yyjson_mut_obj_add_str(doc, o, "created", m->created_at);
    (void)yyjson_mut_obj_add_str(doc, o, "architecture", architecture(m));
    (void)yyjson_mut_obj_add_str(doc, o, "os", "linux");
    (void)yyjson_mut_obj_add_val(doc, o, "config", yyjson_mut_obj(doc));
    (void)yyjson_mut_obj_add_val(doc, o, "rootfs", fs);
    (void)yyjson_mut_obj_add_str(doc, fs, "type", "layers");
    (void)yyjson_mut_obj_add_val(doc, fs, "diff_ids", ids);
    (void)yyjson_mut_arr_add_str(doc, ids, inside);
    (void)yyjson_mut_obj_add_val(doc, o, "history", history);
    yyjson_mut_val *step = yyjson_mut_arr_add_obj(doc, history);
    (void)yyjson_mut_obj_add_str(doc, step, "created_by", "chrek export " CHREK_VERSION);
    return write_document(w, MEDIA "config.v1+json", doc, out, err);
}

/* ---- annotations ---- */

#define CRIO "io.kubernetes.cri-o.annotations.checkpoint."
#define CRIU "org.criu.checkpoint."
#define PODMAN "io.podman.annotations.checkpoint."

static void note(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key, const char *value)
{
    if (value && *value)
        (void)yyjson_mut_obj_add_strcpy(doc, o, key, value);
}

static void annotate(const struct writing *w, yyjson_mut_doc *doc, yyjson_mut_val *o)
{
    const struct metadata *m = &w->parts->meta;
    const char *engine = w->parts->origin.engine ? w->parts->origin.engine : "chrek";
    const struct {
        const char *key, *value;
    } all[] = {
        {CRIO "name", w->name},
        {CRIO "rootfsImageName", m->image},
        {CRIO "criu.version", m->criu_version},
        {CRIU "engine.name", engine},
        {CRIU "engine.version", m->chrek_version},
        {CRIU "container.name", w->name},
        {CRIU "pod.name", m->pod_name},
        {CRIU "pod.namespace", m->pod_namespace},
        {CRIU "rootfsImageName", m->image},
        {CRIU "rootfsImageUserRequested", m->image},
        {CRIU "criu.version", m->criu_version},
        {CRIU "runtime.name", w->o->runtime},
        {CRIU "host.arch", m->arch},
        {CRIU "host.kernel", m->kernel},
        {PODMAN "name", w->name},
        {PODMAN "rootfsImageName", m->image},
        {PODMAN "criu.version", m->criu_version},
        {PODMAN "runtime.name", w->o->runtime},
        {PODMAN "host.arch", m->arch},
        {PODMAN "host.kernel", m->kernel},
        {"org.opencontainers.image.created", m->created_at},
    };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        note(doc, o, all[i].key, all[i].value);
}

static enum rc write_manifest(const struct writing *w, const struct blob *config,
                              const struct blob *layer, struct blob *out, struct err *err)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc), *layers = yyjson_mut_arr(doc);
    yyjson_mut_val *notes = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    (void)yyjson_mut_obj_add_uint(doc, o, "schemaVersion", 2);
    (void)yyjson_mut_obj_add_str(doc, o, "mediaType", MEDIA "manifest.v1+json");
    (void)yyjson_mut_obj_add_val(doc, o, "config", descriptor(doc, config));
    (void)yyjson_mut_arr_append(layers, descriptor(doc, layer));
    (void)yyjson_mut_obj_add_val(doc, o, "layers", layers);
    annotate(w, doc, notes);
    (void)yyjson_mut_obj_add_val(doc, o, "annotations", notes);
    return write_document(w, MEDIA "manifest.v1+json", doc, out, err);
}

static enum rc write_index(int dir, const struct writing *w, const struct blob *manifest,
                           struct err *err)
{
    static const char layout[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc), *list = yyjson_mut_arr(doc);
    yyjson_mut_val *one = descriptor(doc, manifest), *platform = yyjson_mut_obj(doc);
    yyjson_mut_val *notes = yyjson_mut_obj(doc);
    const char *tag = w->o->tag ? w->o->tag : w->parts->meta.checkpoint_id;
    yyjson_mut_doc_set_root(doc, o);
    (void)yyjson_mut_obj_add_uint(doc, o, "schemaVersion", 2);
    (void)yyjson_mut_obj_add_str(doc, o, "mediaType", MEDIA "index.v1+json");
    (void)yyjson_mut_obj_add_str(doc, platform, "architecture", architecture(&w->parts->meta));
    (void)yyjson_mut_obj_add_str(doc, platform, "os", "linux");
    (void)yyjson_mut_obj_add_val(doc, one, "platform", platform);
    note(doc, notes, "org.opencontainers.image.ref.name", tag);
    (void)yyjson_mut_obj_add_val(doc, one, "annotations", notes);
    (void)yyjson_mut_arr_append(list, one);
    (void)yyjson_mut_obj_add_val(doc, o, "manifests", list);
    json_write(doc, &text);
    enum rc rc = fs_write_atomic(dir, "index.json", text.data, text.len, 0644, err);
    return rc ? rc : fs_write_atomic(dir, "oci-layout", layout, sizeof(layout) - 1, 0644, err);
}

enum rc image_write(const struct parts *p, int dir, const struct export_options *o, struct err *err)
{
    struct blob layer, config, manifest;
    char inside[DIGEST_MAX];
    if (sys_mkdirat(dir, "blobs", 0755) < 0 || sys_mkdirat(dir, "blobs/sha256", 0755) < 0)
        return err_sys(err, "make the folder of blobs");
    CLEANUP(fd_closep) int blobs = sys_openat(dir, "blobs/sha256", O_RDONLY | O_DIRECTORY, 0);
    if (blobs < 0)
        return err_sys(err, "open the folder of blobs");
    CLEANUP(mem_freep) char *name = describe_name(&p->meta);
    const struct writing w = {.blobs = blobs, .parts = p, .o = o, .name = name};
    enum rc rc = write_layer(&w, &layer, inside, err);
    if (!rc)
        rc = write_config(&w, inside, &config, err);
    if (!rc)
        rc = write_manifest(&w, &config, &layer, &manifest, err);
    return rc ? rc : write_index(dir, &w, &manifest, err);
}

/* chrek export, chrek import: checkpoints for other programs, and of them. */
#include "base/compiler.h"
#include "base/mem.h"
#include "base/term.h"
#include "cli/cli.h"
#include "cli/keys.h"
#include "codec/json.h"
#include "engine/watch.h"
#include "exchange/export.h"
#include "exchange/import.h"

#include <string.h>

#define THREADS 4U

static const char *base_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n > m && strcmp(text + n - m, end) == 0;
}

/* ---- export ---- */

struct export_values {
    const char *store, *storage, *format, *compression, *tag, *runtime;
    bool image, replace, quiet;
    struct cli_keys keys;
};

static const struct opt export_options[] = {
    CLI_STORE_OPTION(struct export_values, store),
    CLI_STORAGE_OPTION(struct export_values, storage),
    CLI_KEY_OPTIONS(struct export_values, keys),
    {.name = "format",
     .kind = OPT_STRING,
     .arg = "archive|directory",
     .offset = offsetof(struct export_values, format),
     .help = "What to write. archive: a tar archive as the kubelet, CRI-O, containerd and Podman "
             "write it. directory: a checkpoint directory with CRIU's own page images. Default: "
             "archive."},
    {.name = "image",
     .kind = OPT_FLAG,
     .offset = offsetof(struct export_values, image),
     .help = "Write an image in OCI layout that CRI-O, containerd and Podman take for a "
             "checkpoint: a directory, or a tar archive where FILE ends with .tar."},
    {.name = "compress",
     .kind = OPT_STRING,
     .arg = "none|gzip|zstd",
     .offset = offsetof(struct export_values, compression),
     .help = "Of the archive or the image's layer: none, gzip or zstd. Default: none."},
    {.name = "tag",
     .kind = OPT_STRING,
     .arg = "TAG",
     .offset = offsetof(struct export_values, tag),
     .help = "With --image: its name in the layout. Default: the checkpoint's id."},
    {.name = "podman-runtime",
     .kind = OPT_STRING,
     .arg = "NAME",
     .offset = offsetof(struct export_values, runtime),
     .help = "With --image: runc or crun, the runtime that made it. Podman restores only images "
             "that say so, and old versions of Podman then use the checkpoint's security settings "
             "instead of yours."},
    {.name = "replace",
     .kind = OPT_FLAG,
     .offset = offsetof(struct export_values, replace),
     .help = "Also when FILE is there already."},
    {.name = "quiet",
     .letter = 'q',
     .kind = OPT_FLAG,
     .offset = offsetof(struct export_values, quiet),
     .help = "Show no progress."},
    {.name = NULL},
};

static enum rc export_kind(const struct export_values *v, enum export_kind *out, struct err *err)
{
    const char *f = v->format ? v->format : "archive";
    bool directory = strcmp(f, "directory") == 0;
    if (!directory && strcmp(f, "archive") != 0)
        return err_set(err, RC_INVALID, "--format is archive or directory, not '%.32s'", f);
    if (v->image && v->format)
        return err_set(err, RC_INVALID, "--image is a format: it goes without --format");
    if (!v->image && (v->tag || v->runtime))
        return err_set(err, RC_INVALID, "--tag and --podman-runtime go with --image");
    if (directory && v->compression)
        return err_set(err, RC_INVALID, "a directory is not compressed");
    *out = v->image ? EXPORT_IMAGE : directory ? EXPORT_DIRECTORY : EXPORT_ARCHIVE;
    return RC_OK;
}

static enum rc export_compression(const char *name, enum export_compression *out, struct err *err)
{
    static const char *const names[] = {
        [EXPORT_PLAIN] = "none", [EXPORT_GZIP] = "gzip", [EXPORT_ZSTD] = "zstd"};
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(name ? name : "none", names[i]) == 0) {
            *out = (enum export_compression)i;
            return RC_OK;
        }
    return err_set(err, RC_INVALID, "--compress is none, gzip or zstd, not '%.32s'", name);
}

static enum rc write_export(const struct export_values *v, struct store *store, const char *id,
                            struct export_options *o, struct err *err)
{
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CLEANUP(mem_freep) char *none = NULL;
    struct engine engine;
    uint64_t done = 0;
    enum rc rc = store_find(store, id, &e, err);
    if (!rc)
        rc = cli_engine("unused", v->quiet, &engine, &none, err);
    if (rc)
        return rc;
    const struct metadata *m = store_entry_metadata(e);
    struct watch *w = watch_counter(&engine, "Exporting", &done, m->pages_bytes);
    o->done = &done;
    rc = exchange_export(e, o, err);
    o->done = NULL;
    watch_stop(w);
    cli_engine_end(&engine);
    return rc;
}

static int export_main(const struct opt_command *self, int argc, char **argv)
{
    struct export_values v = {.store = NULL};
    struct err err = ERR_INIT;
    struct export_options o = {.path = NULL};
    int first = 0;
    CLEANUP(vault_done) struct vault vault = {.keys = NULL};
    CLEANUP(store_freep) struct store *store = NULL;
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc)
        rc = export_kind(&v, &o.kind, &err);
    if (!rc)
        rc = export_compression(v.compression, &o.compression, &err);
    if (!rc)
        rc = cli_open_existing_with(v.store ? v.store : v.storage, &v.keys, &vault, &store, &err);
    if (rc)
        return cli_fail(&err);
    o.path = argv[first + 1];
    o.replace = v.replace;
    o.tar = v.image && ends_with(o.path, ".tar");
    o.tag = v.tag;
    o.runtime = v.runtime;
    rc = write_export(&v, store, argv[first], &o, &err);
    return rc ? cli_fail(&err) : CLI_OK;
}

const struct opt_command cmd_export = {
    .name = "export",
    .summary = "write a checkpoint for other programs",
    .synopsis = "[OPTIONS] ID FILE",
    .description =
        "Writes the checkpoint ID into FILE as an archive like those of the kubelet, CRI-O, "
        "containerd and Podman, as a directory, or as an OCI image. Its memory becomes the page "
        "images that any CRIU can read, whatever way it is stored here; it is not encrypted, and "
        "only root can read it. A checkpoint that was imported is written as it came.",
    .examples = "  chrek export web /tmp/web.tar\n"
                "  # what checkpointctl and crictl show\n"
                "  chrek export --compress zstd web /tmp/web.tar.zst\n"
                "  # an image, into a registry\n"
                "  chrek export --image web /tmp/web-image\n"
                "  skopeo copy oci:/tmp/web-image:web docker://registry/checkpoints/web\n",
    .opts = export_options,
    .min_operands = 2,
    .max_operands = 2,
    .candidates = "__ids",
    .run = export_main,
};

/* ---- import ---- */

struct import_values {
    const char *store, *storage, *id, *format, *compression;
    bool replace, json, quiet;
    struct cli_keys keys;
};

static const struct opt import_options[] = {
    CLI_STORE_OPTION(struct import_values, store),
    CLI_STORAGE_OPTION(struct import_values, storage),
    {.name = "id",
     .kind = OPT_STRING,
     .arg = "ID",
     .offset = offsetof(struct import_values, id),
     .help = "The checkpoint's name here. Default: the file's, without .tar and the like."},
    {.name = "replace",
     .kind = OPT_FLAG,
     .offset = offsetof(struct import_values, replace),
     .help = "Also when there is a checkpoint of this name."},
    CLI_FORMAT_OPTIONS(struct import_values, format, compression),
    CLI_KEY_OPTIONS(struct import_values, keys),
    CLI_SIGN_OPTION(struct import_values, keys),
    CLI_JSON_OPTION(struct import_values, json),
    {.name = "quiet",
     .letter = 'q',
     .kind = OPT_FLAG,
     .offset = offsetof(struct import_values, quiet),
     .help = "Show no progress."},
    {.name = NULL},
};

/* The caller's (free). */
static char *default_id(const char *path)
{
    static const char *const ends[] = {".gz", ".zst", ".tgz", ".tar"};
    CLEANUP(mem_freep) char *text = mem_strdup(path);
    for (size_t n = strlen(text); n > 1 && text[n - 1] == '/'; n--)
        text[n - 1] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(ends); i++)
        if (ends_with(text, ends[i]))
            text[strlen(text) - strlen(ends[i])] = '\0';
    return mem_strdup(base_of(text));
}

static int report_import(const struct import_values *v, const char *id,
                         const struct import_result *r)
{
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    if (v->json) {
        CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
        yyjson_mut_val *o = yyjson_mut_obj(doc);
        yyjson_mut_doc_set_root(doc, o);
        (void)yyjson_mut_obj_add_str(doc, o, "id", id);
        (void)yyjson_mut_obj_add_str(doc, o, "engine", r->engine);
        (void)yyjson_mut_obj_add_uint(doc, o, "members", r->members);
        (void)yyjson_mut_obj_add_uint(doc, o, "bytes", r->bytes);
        (void)yyjson_mut_obj_add_uint(doc, o, "memory_bytes", r->memory_bytes);
        json_write(doc, &out);
        buf_adds(&out, "\n");
        return cli_print(&out);
    }
    buf_addf(&out, "%s\t%u members of %s, ", id, r->members, r->engine);
    term_size(r->memory_bytes, &out);
    buf_adds(&out, " of memory\n");
    return cli_print(&out);
}

static int import_main(const struct opt_command *self, int argc, char **argv)
{
    struct import_values v = {.store = NULL};
    struct err err = ERR_INIT;
    struct import_options o = {.threads = THREADS};
    struct import_result result = {.engine = ""};
    struct engine engine;
    uint64_t done = 0;
    int first = 0;
    CLEANUP(vault_done) struct vault vault = {.keys = NULL};
    CLEANUP(store_freep) struct store *store = NULL;
    CLEANUP(mem_freep) char *none = NULL;
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc)
        rc = cli_format(v.format, v.compression, &o.plain, &o.codec, &err);
    if (!rc)
        rc = cli_open_store_with(v.store ? v.store : v.storage, &v.keys, &vault, &store, &err);
    if (!rc)
        cli_warn_first_encrypted(store, &vault);
    if (!rc)
        rc = cli_engine("unused", v.quiet || v.json, &engine, &none, &err);
    if (rc)
        return cli_fail(&err);
    CLEANUP(mem_freep) char *id = v.id ? mem_strdup(v.id) : default_id(argv[first]);
    o.path = argv[first];
    o.id = id;
    o.replace = v.replace;
    o.done = &done;
    struct watch *w = watch_counter(&engine, "Importing", &done, 0);
    rc = exchange_import(store, &o, &result, &err);
    watch_stop(w);
    cli_engine_end(&engine);
    return rc ? cli_fail(&err) : report_import(&v, id, &result);
}

const struct opt_command cmd_import = {
    .name = "import",
    .summary = "take in a checkpoint of another program",
    .synopsis = "[OPTIONS] FILE",
    .description =
        "Makes a checkpoint of FILE: an archive of the kubelet (CRI-O, containerd) or of `podman "
        "container checkpoint --export`, plain or compressed by gzip or zstd, an archive of `chrek "
        "export`, or a directory with CRIU's images in it or in its folder checkpoint. Nothing of "
        "it is lost: `chrek export` writes it again as it came.\n\n"
        "Archives with links, devices, absolute or climbing paths, or more content than they can "
        "honestly hold are refused. Digests are made now: that the archive is what somebody once "
        "wrote, only its source can tell.",
    .examples = "  chrek import /var/lib/kubelet/checkpoints/checkpoint-web.tar\n"
                "  chrek import --id web /tmp/podman-export.tar.gz\n",
    .opts = import_options,
    .min_operands = 1,
    .max_operands = 1,
    .run = import_main,
};

#include "store/manifest.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "codec/hex.h"
#include "codec/json.h"
#include "codec/name.h"
#include "store/done.h"
#include "store/dump_log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT 1
#define FORMAT_BOUND 2
#define FILES_MAX 1000000
#define PACKS_MAX 1000000

static const char *const not_listed[] = {MANIFEST_NAME, MANIFEST_SIGNATURE, DONE_NAME,
                                         DUMP_LOG_NAME, DUMP_LOG_PACKED,    "restore.log",
                                         "stats-dump",  "stats-restore",    "restore-criu.conf"};

bool manifest_wants(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(not_listed); i++)
        if (strcmp(name, not_listed[i]) == 0)
            return false;
    return true;
}

void manifest_add(struct manifest *m, const char *name, uint64_t size, const struct digest *d)
{
    if ((m->n & (m->n - 1)) == 0) /* a power of two: full */
        m->files = mem_realloc(m->files, (m->n ? m->n * 2 : 1) * sizeof(*m->files));
    m->files[m->n++] = (struct manifest_file){mem_strdup(name), size, *d};
}

const struct manifest_file *manifest_find(const struct manifest *m, const char *name)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->files[i].name, name) == 0)
            return &m->files[i];
    return NULL;
}

static void format_binding(const struct manifest *m, yyjson_mut_doc *doc, yyjson_mut_val *root)
{
    char hex[2 * SEAL_INSTANCE + 1];
    (void)yyjson_mut_obj_add_str(doc, root, "id", m->id);
    hex_format(m->instance, SEAL_INSTANCE, hex);
    (void)yyjson_mut_obj_add_strcpy(doc, root, "instance", hex);
    if (!m->sealed)
        return;
    hex_format(m->key.bytes, KEYFILE_ID, hex);
    (void)yyjson_mut_obj_add_strcpy(doc, root, "key", hex);
    yyjson_mut_val *packs = yyjson_mut_arr(doc);
    (void)yyjson_mut_obj_add_val(doc, root, "packs", packs);
    for (size_t i = 0; i < m->n_packs; i++)
        (void)yyjson_mut_arr_add_str(doc, packs, m->packs[i]);
}

void manifest_format(const struct manifest *m, struct buf *out)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    (void)yyjson_mut_obj_add_uint(doc, root, "format", m->id ? FORMAT_BOUND : FORMAT);
    if (m->id)
        format_binding(m, doc, root);
    yyjson_mut_val *files = yyjson_mut_arr(doc);
    (void)yyjson_mut_obj_add_val(doc, root, "files", files);
    for (size_t i = 0; i < m->n; i++) {
        char text[DIGEST_TEXT_LEN + 1];
        digest_format(&m->files[i].digest, text);
        yyjson_mut_val *f = yyjson_mut_arr_add_obj(doc, files);
        (void)yyjson_mut_obj_add_str(doc, f, "name", m->files[i].name);
        (void)yyjson_mut_obj_add_uint(doc, f, "size", m->files[i].size);
        (void)yyjson_mut_obj_add_strcpy(doc, f, "digest", text);
    }
    json_write(doc, out);
}

static bool is_plain_name(const char *name, size_t len)
{
    return len > 0 && len < 256 && strlen(name) == len && !strchr(name, '/') &&
           strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static enum rc parse_file(yyjson_val *f, struct manifest *m, struct err *err)
{
    yyjson_val *name = yyjson_obj_get(f, "name"), *digest = yyjson_obj_get(f, "digest");
    yyjson_val *size = yyjson_obj_get(f, "size");
    struct digest d;
    if (!yyjson_is_str(name) || !is_plain_name(yyjson_get_str(name), yyjson_get_len(name)))
        return err_set(err, RC_CORRUPT, MANIFEST_NAME ": a file with a bad name");
    if (!yyjson_is_uint(size) || !yyjson_is_str(digest) ||
        digest_parse(yyjson_get_str(digest), yyjson_get_len(digest), &d, NULL) != RC_OK)
        return err_set(err, RC_CORRUPT, MANIFEST_NAME ": '%s' without size or digest",
                       yyjson_get_str(name));
    manifest_add(m, yyjson_get_str(name), yyjson_get_uint(size), &d);
    return RC_OK;
}

static bool parse_hex(yyjson_val *v, void *out, size_t len)
{
    return yyjson_is_str(v) && hex_parse(yyjson_get_str(v), yyjson_get_len(v), out, len);
}

static enum rc parse_packs(yyjson_val *packs, struct manifest *m, struct err *err)
{
    size_t i, max;
    yyjson_val *p;
    if (!yyjson_is_arr(packs) || yyjson_arr_size(packs) > PACKS_MAX)
        return err_set(err, RC_CORRUPT, MANIFEST_NAME ": encrypted, and without packs");
    m->packs = mem_zalloc((yyjson_arr_size(packs) + 1) * sizeof(*m->packs));
    yyjson_arr_foreach(packs, i, max, p)
    {
        const char *name = yyjson_get_str(p);
        if (!name || yyjson_get_len(p) != MEMORY_PACK_NAME_LEN ||
            strspn(name, "0123456789abcdef") != MEMORY_PACK_NAME_LEN)
            return err_set(err, RC_CORRUPT, MANIFEST_NAME ": a pack with a bad name");
        memcpy(m->packs[m->n_packs++], name, sizeof(*m->packs));
    }
    return RC_OK;
}

static enum rc parse_binding(yyjson_val *root, struct manifest *m, struct err *err)
{
    yyjson_val *id = yyjson_obj_get(root, "id"), *key = yyjson_obj_get(root, "key");
    if (!yyjson_is_str(id) || strlen(yyjson_get_str(id)) != yyjson_get_len(id) ||
        !name_is_id(yyjson_get_str(id)) ||
        !parse_hex(yyjson_obj_get(root, "instance"), m->instance, SEAL_INSTANCE))
        return err_set(err, RC_CORRUPT, MANIFEST_NAME ": it does not say whose it is");
    m->id = mem_strdup(yyjson_get_str(id));
    if (!key)
        return RC_OK;
    m->sealed = true;
    if (!parse_hex(key, m->key.bytes, KEYFILE_ID))
        return err_set(err, RC_CORRUPT, MANIFEST_NAME ": a key with a bad name");
    return parse_packs(yyjson_obj_get(root, "packs"), m, err);
}

enum rc manifest_parse(const char *text, size_t len, struct manifest *out, struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(manifest_done) struct manifest m = {0};
    enum rc rc = json_parse(MANIFEST_NAME, text, len, &doc, err);
    if (rc)
        return rc;
    yyjson_val *root = yyjson_doc_get_root(doc), *files = yyjson_obj_get(root, "files"), *f;
    uint64_t format = json_u64(root, "format", 0);
    if (format > FORMAT_BOUND)
        return err_set(err, RC_UNSUPPORTED, MANIFEST_NAME " of a newer chrek (format %" PRIu64 ")",
                       format);
    if (format < 1 || !yyjson_is_arr(files) || yyjson_arr_size(files) > FILES_MAX)
        return err_set(err, RC_CORRUPT, MANIFEST_NAME " without format or files");
    if (format == FORMAT_BOUND)
        rc = parse_binding(root, &m, err);
    if (rc)
        return rc;
    size_t i, max;
    yyjson_arr_foreach(files, i, max, f)
    {
        rc = parse_file(f, &m, err);
        if (rc)
            return rc;
    }
    *out = m;
    m = (struct manifest){0};
    return RC_OK;
}

void manifest_done(struct manifest *m)
{
    for (size_t i = 0; i < m->n; i++)
        free(m->files[i].name);
    free(m->files);
    free(m->id);
    free(m->packs);
    *m = (struct manifest){0};
}

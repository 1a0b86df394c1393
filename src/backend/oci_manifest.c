#include "backend/oci_manifest.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "codec/json.h"
#include "codec/sha256.h"

#include <stdlib.h>
#include <string.h>

#define KEY_NOTE "org.chrek.object.key"
#define WRITER_NOTE "org.chrek.object.writer"
#define LAYERS_MAX 65536
#define SIZE_MAX_BYTES ((uint64_t)1 << 60)

/* ---- manifests ---- */

static yyjson_mut_val *descriptor(yyjson_mut_doc *doc, const char *media, const char *digest,
                                  uint64_t size)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    (void)yyjson_mut_obj_add_str(doc, o, "mediaType", media);
    (void)yyjson_mut_obj_add_str(doc, o, "digest", digest);
    (void)yyjson_mut_obj_add_uint(doc, o, "size", size);
    return o;
}

void oci_manifest_format(const struct oci_manifest *m, struct buf *out)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc), *layers = yyjson_mut_arr(doc);
    yyjson_mut_val *notes = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    (void)yyjson_mut_obj_add_uint(doc, o, "schemaVersion", 2);
    (void)yyjson_mut_obj_add_str(doc, o, "mediaType", OCI_MANIFEST);
    (void)yyjson_mut_obj_add_str(doc, o, "artifactType", OCI_ARTIFACT);
    (void)yyjson_mut_obj_add_val(doc, o, "config", descriptor(doc, OCI_EMPTY, OCI_EMPTY_DIGEST, 2));
    for (size_t i = 0; i < m->n; i++)
        (void)yyjson_mut_arr_append(layers, descriptor(doc, "application/octet-stream",
                                                       m->layers[i].digest, m->layers[i].size));
    (void)yyjson_mut_obj_add_val(doc, o, "layers", layers);
    (void)yyjson_mut_obj_add_str(doc, notes, KEY_NOTE, m->key ? m->key : "");
    (void)yyjson_mut_obj_add_str(doc, notes, WRITER_NOTE, m->writer ? m->writer : "");
    (void)yyjson_mut_obj_add_val(doc, o, "annotations", notes);
    json_write(doc, out);
}

static bool is_digest(const char *text)
{
    return text && strlen(text) == OCI_DIGEST_LEN && strncmp(text, "sha256:", 7) == 0 &&
           strspn(text + 7, "0123456789abcdef") == SHA256_HEX_LEN;
}

static enum rc add_layer(struct oci_manifest *m, yyjson_val *v, struct err *err)
{
    const char *digest = json_str(v, "digest", NULL);
    uint64_t size = json_u64(v, "size", UINT64_MAX);
    if (!is_digest(digest) || size > SIZE_MAX_BYTES || m->size + size > SIZE_MAX_BYTES ||
        m->n == LAYERS_MAX)
        return err_set(err, RC_CORRUPT, "its manifest has a bad layer");
    if ((m->n & (m->n - 1)) == 0)
        m->layers = mem_realloc(m->layers, (m->n ? m->n * 2 : 1) * sizeof(*m->layers));
    struct oci_layer *l = &m->layers[m->n++];
    memcpy(l->digest, digest, OCI_DIGEST_LEN + 1);
    l->size = size;
    m->size += size;
    return RC_OK;
}

enum rc oci_manifest_parse(const char *text, size_t len, struct oci_manifest *out, struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(oci_manifest_done) struct oci_manifest m = {.key = NULL};
    enum rc rc = json_parse("manifest", text, len, &doc, err);
    if (rc)
        return rc;
    yyjson_val *root = yyjson_doc_get_root(doc), *layers = yyjson_obj_get(root, "layers"), *v;
    yyjson_val *notes = yyjson_obj_get(root, "annotations");
    size_t i, max;
    if (!yyjson_is_arr(layers))
        return err_set(err, RC_CORRUPT, "its manifest has no layers");
    yyjson_arr_foreach(layers, i, max, v)
    {
        rc = add_layer(&m, v, err);
        if (rc)
            return rc;
    }
    m.key = mem_strdup(json_str(notes, KEY_NOTE, NULL));
    m.writer = mem_strdup(json_str(notes, WRITER_NOTE, ""));
    *out = m;
    m = (struct oci_manifest){.key = NULL};
    return RC_OK;
}

void oci_manifest_done(struct oci_manifest *m)
{
    free(m->key);
    free(m->writer);
    free(m->layers);
    *m = (struct oci_manifest){.key = NULL};
}

/* ---- tags ---- */

void oci_tag(const char *key, char out[OCI_TAG_MAX + 1])
{
    size_t n = 0;
    for (const char *p = key; *p && n + 2 <= OCI_TAG_MAX; p++) {
        char second = '\0';
        if (*p == '_')
            second = '_';
        else if (*p == '/')
            second = 's';
        else if (p == key && *p == '-')
            second = 'd';
        if (second)
            out[n++] = '_';
        out[n] = *p;
        if (second)
            out[n] = second;
        n++;
        if (!p[1]) {
            out[n] = '\0';
            return;
        }
    }
    uint8_t digest[SHA256_LEN];
    sha256_of(key, strlen(key), digest);
    memcpy(out, "_x", 2);
    sha256_hex(digest, out + 2);
}

void oci_key(const char *tag, char out[BACKEND_KEY_MAX + 1])
{
    static const char escaped[] = "_sd";
    char again[OCI_TAG_MAX + 1];
    size_t n = 0;
    out[0] = '\0';
    if (strlen(tag) > OCI_TAG_MAX)
        return;
    for (const char *p = tag; *p; p++) {
        if (*p != '_') {
            out[n++] = *p;
            continue;
        }
        p++;
        const char *found = *p ? strchr(escaped, *p) : NULL;
        if (!found)
            break;
        out[n++] = "_/-"[found - escaped];
    }
    out[n] = '\0';
    if (backend_check_key(out, NULL) == RC_OK) {
        oci_tag(out, again); /* one key has one tag */
        if (strcmp(again, tag) == 0)
            return;
    }
    out[0] = '\0';
}

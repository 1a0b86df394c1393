/* The manifest of an object in a registry (OCI image manifest with an artifact type), and the tags
 * that objects have there.
 *
 * Its layers one after another are the content.  Annotations say the key and who wrote it; one
 * without them is somebody else's, and its tag is what its key is made of.
 *
 * Threads: safe. */
#pragma once

#include "backend/backend.h"
#include "base/buf.h"

#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_ARTIFACT "application/vnd.chrek.object.v1"
#define OCI_EMPTY "application/vnd.oci.empty.v1+json"
#define OCI_EMPTY_DIGEST "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
#define OCI_DIGEST_LEN 71 /* "sha256:" and 64 digits, without the NUL */
#define OCI_TAG_MAX 128   /* bytes of a tag */
#define OCI_MANIFEST_MAX ((size_t)4 << 20)

struct oci_layer {
    char digest[OCI_DIGEST_LEN + 1];
    uint64_t size;
};

struct oci_manifest {
    char *key;    /* NULL: not ours */
    char *writer; /* "" when it does not say */
    struct oci_layer *layers;
    size_t n;
    uint64_t size; /* of all layers */
};

void oci_manifest_format(const struct oci_manifest *m, struct buf *out);
/* out: the caller's, oci_manifest_done().  errors RC_CORRUPT */
enum rc oci_manifest_parse(const char *text, size_t len, struct oci_manifest *out, struct err *err);
void oci_manifest_done(struct oci_manifest *m);

/* Of a key: `_` as `__`, `/` as `_s`, a `-` at the beginning as `_d`; of one that is too long for
 * this `_x` and the SHA-256 of it. */
void oci_tag(const char *key, char out[OCI_TAG_MAX + 1]);
/* The key of a tag, "" when the tag does not tell. */
void oci_key(const char *tag, char out[BACKEND_KEY_MAX + 1]);

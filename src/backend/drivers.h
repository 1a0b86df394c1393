/* The drivers.  out: the caller's, backend_freep(). */
#pragma once

#include "backend/backend.h"

struct backend_options;
struct backend_url;

/* Files beneath a directory: a local disk, NFS, a mounted volume.  An object is a file whose path
 * is its key.  It is written under a name that no key can have and linked to its own: that is the
 * commit, and link() refuses to replace on every file system.
 * dir     borrowed; opened anew
 * errors  RC_IO */
enum rc backend_local_open(int dir, struct backend **out, struct err *err);

/* Memory of this process, for tests. */
enum rc backend_mem_open(struct backend **out, struct err *err);

/* A bucket of a server that speaks S3: s3://BUCKET/PREFIX.
 *
 * Query: endpoint=http[s]://HOST[:PORT], region, style=path|virtual (path where an endpoint is
 * given), profile, ca=FILE, sse=AES256|aws:kms, sse_kms_key_id.  Environment: AWS_ENDPOINT_URL_S3,
 * AWS_ENDPOINT_URL, AWS_REGION, AWS_DEFAULT_REGION, AWS_CA_BUNDLE, and those of s3_credentials.h.
 * The server must know If-None-Match for PutObject.  Where it does not for CompleteMultipartUpload,
 * of two who finish an object of more than REMOTE_PART bytes in the same moment both may be told
 * that they were first.
 * errors  RC_INVALID (a setting), as http_open(); nothing is asked of the server yet */
enum rc backend_s3_open(const struct backend_url *u, const struct backend_options *o,
                        struct backend **out, struct err *err);

/* A container of Azure Blob storage: az://CONTAINER/PREFIX.
 *
 * Query: account, endpoint=http[s]://HOST[:PORT][/ACCOUNT], client_id (which managed identity),
 * ca=FILE.  Environment: AZURE_STORAGE_CONNECTION_STRING, which then says all;
 * AZURE_STORAGE_ACCOUNT, AZURE_STORAGE_KEY or else AZURE_STORAGE_SAS_TOKEN or else an identity
 * (azure_identity.h). Blocks of an upload that was given up stay, unseen, until the server drops
 * them after a week. errors  RC_INVALID (a setting), as http_open(); nothing is asked of the server
 * yet */
enum rc backend_azure_open(const struct backend_url *u, const struct backend_options *o,
                           struct backend **out, struct err *err);

/* A repository of an OCI registry: oci://REGISTRY[:PORT]/REPOSITORY.  An object is an artifact
 * whose layers are its parts, under a tag that its key is made of (oci_manifest.h).
 *
 * Query: plain=true (http instead of https), ca=FILE.  Credentials: oci_auth.h.  The registry must
 * allow to delete manifests.  It knows no "if absent": of two processes that make the same object
 * in the same moment both may be told that they were first, and the later one's stays.  Blobs that
 * no manifest names any more are the registry's to collect.
 * errors  RC_INVALID (a setting), as http_open() and oci_auth_open(); nothing is asked of the
 *         registry yet */
enum rc backend_oci_open(const struct backend_url *u, const struct backend_options *o,
                         struct backend **out, struct err *err);

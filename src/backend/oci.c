#include "backend/drivers.h"
#include "backend/oci_auth.h"
#include "backend/oci_manifest.h"
#include "backend/remote.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "codec/json.h"
#include "codec/sha256.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PARTS_MAX 20000 /* descriptors of them fit into a manifest */
#define KNOWN_MAX 64    /* manifests that are kept in memory */
#define PAGE 200        /* tags of a listing at once */
#define REDIRECTS 4     /* to where a registry keeps its blobs */
#define PUBLISH_NS (30 * CLOCK_S)

/* Manifests by their digest, which says all: they never change. */
struct known {
    char digest[OCI_DIGEST_LEN + 1];
    struct oci_manifest manifest;
};

struct oci {
    struct remote remote;
    char *registry, *repository;
    char *base; /* URL of the registry */
    struct oci_auth *auth;
    pthread_mutex_t lock; /* of what follows */
    struct known known[KNOWN_MAX];
    unsigned next;      /* to be replaced */
    bool has_config;    /* the empty config is there */
    pthread_mutex_t in; /* held by who gives a tag to a manifest: looks, then does it */
};

struct call {
    struct oci *oci;
    const char *method;
    const char *url;
    const void *body;
    size_t body_len;
    bool has_body;
    const char *accept, *type; /* headers, or NULL */
    bool fresh, renewed;
};

static struct oci *oci_of(struct remote *r)
{
    return (struct oci *)r;
}

/* ---- one request ---- */

static enum rc authorize(void *arg, struct http_try *t, struct err *err)
{
    struct call *c = arg;
    CLEANUP(buf_done) struct buf header = BUF_INIT;
    enum rc rc = oci_auth_header(c->oci->auth, c->fresh, &header, err);
    if (rc)
        return rc;
    c->fresh = false;
    if (header.len)
        http_try_header(t, "Authorization: %s", buf_str(&header));
    if (c->accept)
        http_try_header(t, "Accept: %s", c->accept);
    if (c->type)
        http_try_header(t, "Content-Type: %s", c->type);
    return RC_OK;
}

/* A token may have ended. */
static bool again(void *arg, unsigned status, const struct buf *body)
{
    struct call *c = arg;
    (void)body;
    if (status != 401 || c->renewed)
        return false;
    return c->fresh = c->renewed = true;
}

/* What the registry says of a failure. */
static enum rc explain(const struct call *c, const struct http_response *a, struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = yyjson_read(buf_str(&a->body), a->body.len, 0);
    yyjson_val *errors = doc ? yyjson_obj_get(yyjson_doc_get_root(doc), "errors") : NULL;
    yyjson_val *e = errors ? yyjson_arr_get_first(errors) : NULL;
    const char *code = json_str(e, "code", "no reason"), *text = json_str(e, "message", "");
    if (a->status == 401 || a->status == 403)
        return err_set(err, RC_DENIED,
                       "registry %s refuses the credentials (from %s) for '%s': %.60s",
                       c->oci->registry, oci_auth_source(c->oci->auth), c->oci->repository, code);
    if (a->status == 404)
        return err_set(err, RC_NOT_FOUND, "there is no such object");
    if (a->status == 405 && strcmp(c->method, "DELETE") == 0)
        return err_set(err, RC_UNSUPPORTED,
                       "registry %s does not allow to delete: for Debian's docker-registry set "
                       "REGISTRY_STORAGE_DELETE_ENABLED=true",
                       c->oci->registry);
    enum rc rc = http_status_rc(a->status);
    return err_set(err, rc, "the registry answers with status %u: %.60s %.100s", a->status, code,
                   text);
}

/* Do it; more: what the http_request has beyond the call.  RC_OK: an answer 200..299 */
static enum rc perform(struct call *c, const struct http_request *more, struct http_response *out,
                       struct err *err)
{
    struct http_response a = {0};
    struct http_request r = more ? *more : (struct http_request){.method = NULL};
    r.method = c->method;
    r.url = c->url;
    r.body = c->body;
    r.body_len = c->body_len;
    r.has_body = c->has_body;
    r.prepare = authorize;
    r.prepare_arg = c;
    r.again = again;
    r.again_arg = c;
    enum rc rc = http_do(c->oci->remote.http, &r, &a, err);
    if (rc)
        return rc;
    if (http_status_rc(a.status) == RC_OK) {
        *out = a;
        return RC_OK;
    }
    out->status = a.status;
    rc = explain(c, &a, err);
    http_response_done(&a);
    return rc;
}

/* The caller's (free). */
static char *url_of(const struct oci *o, const char *kind, const char *name)
{
    return mem_asprintf("%s/v2/%s/%s/%s", o->base, o->repository, kind, name);
}

/* ---- manifests ---- */

static void copy_manifest(const struct oci_manifest *m, struct oci_manifest *out)
{
    *out = *m;
    out->key = mem_strdup(m->key);
    out->writer = mem_strdup(m->writer);
    out->layers = mem_alloc((m->n + 1) * sizeof(*m->layers));
    memcpy(out->layers, m->layers, m->n * sizeof(*m->layers));
}

static bool is_known(struct oci *o, const char *digest, struct oci_manifest *out)
{
    bool found = false;
    (void)pthread_mutex_lock(&o->lock);
    for (unsigned i = 0; i < KNOWN_MAX && !found; i++)
        if (strcmp(o->known[i].digest, digest) == 0) {
            copy_manifest(&o->known[i].manifest, out);
            found = true;
        }
    (void)pthread_mutex_unlock(&o->lock);
    return found;
}

static void remember(struct oci *o, const char *digest, const struct oci_manifest *m)
{
    (void)pthread_mutex_lock(&o->lock);
    struct known *k = &o->known[o->next++ % KNOWN_MAX];
    oci_manifest_done(&k->manifest);
    copy_manifest(m, &k->manifest);
    (void)snprintf(k->digest, sizeof(k->digest), "%s", digest);
    (void)pthread_mutex_unlock(&o->lock);
}

static void digest_text(const void *data, size_t len, char out[OCI_DIGEST_LEN + 1])
{
    uint8_t digest[SHA256_LEN];
    sha256_of(data, len, digest);
    static const char prefix[7] = {'s', 'h', 'a', '2', '5', '6', ':'};
    memcpy(out, prefix, sizeof(prefix));
    sha256_hex(digest, out + sizeof(prefix));
}

/* reference: a tag or a digest.  out: the caller's, oci_manifest_done() */
static enum rc get_manifest(struct oci *o, const char *reference, struct oci_manifest *out,
                            char digest[OCI_DIGEST_LEN + 1], struct err *err)
{
    CLEANUP(mem_freep) char *url = url_of(o, "manifests", reference);
    CLEANUP(http_response_done) struct http_response a = {0};
    struct call c = {.oci = o, .method = "GET", .url = url, .accept = OCI_MANIFEST};
    const struct http_request more = {.body_max = OCI_MANIFEST_MAX};
    enum rc rc = perform(&c, &more, &a, err);
    if (rc)
        return rc;
    digest_text(a.body.data, a.body.len, digest);
    if (strncmp(reference, "sha256:", 7) == 0 && strcmp(reference, digest) != 0)
        return err_set(err, RC_CORRUPT, "the registry gives another manifest than was asked for");
    rc = oci_manifest_parse(buf_str(&a.body), a.body.len, out, err);
    if (!rc)
        remember(o, digest, out);
    return rc;
}

static enum rc manifest_of_digest(struct oci *o, const char *digest, struct oci_manifest *out,
                                  struct err *err)
{
    char got[OCI_DIGEST_LEN + 1];
    return is_known(o, digest, out) ? RC_OK : get_manifest(o, digest, out, got, err);
}

/* ---- reading ---- */

static enum rc get_blob(struct oci *o, const struct oci_layer *l, uint64_t offset, void *data,
                        size_t len, struct err *err)
{
    CLEANUP(mem_freep) char *url = url_of(o, "blobs", l->digest);
    CLEANUP(http_response_done) struct http_response a = {0};
    struct call c = {.oci = o, .method = "GET", .url = url};
    const struct http_request more = {.range = true,
                                      .range_offset = offset,
                                      .range_len = len,
                                      .into = data,
                                      .into_len = len,
                                      .redirects = REDIRECTS};
    return perform(&c, &more, &a, err);
}

static enum rc read_layers(struct oci *o, const struct oci_manifest *m, uint64_t offset, void *data,
                           size_t len, struct err *err)
{
    for (size_t i = 0; i < m->n && len > 0; i++) {
        const struct oci_layer *l = &m->layers[i];
        if (offset >= l->size) {
            offset -= l->size;
            continue;
        }
        size_t n = len < l->size - offset ? len : (size_t)(l->size - offset);
        enum rc rc = get_blob(o, l, offset, data, n, err);
        if (rc)
            return rc;
        data = (char *)data + n;
        len -= n;
        offset = 0;
    }
    return len ? err_set(err, RC_CORRUPT, "it ends too early") : RC_OK;
}

static enum rc oci_look(struct remote *r, const char *key, void *data, size_t len, size_t *out_len,
                        struct remote_info *out, struct err *err)
{
    struct oci *o = oci_of(r);
    char tag[OCI_TAG_MAX + 1], digest[OCI_DIGEST_LEN + 1];
    CLEANUP(oci_manifest_done) struct oci_manifest m = {.key = NULL};
    oci_tag(key, tag);
    enum rc rc = get_manifest(o, tag, &m, digest, err);
    if (rc)
        return rc;
    size_t n = len < m.size ? len : (size_t)m.size;
    rc = read_layers(o, &m, 0, data, n, err);
    if (rc)
        return rc;
    struct remote_info info = {.size = m.size};
    memcpy(info.tag, digest, sizeof(digest));
    (void)snprintf(info.token, sizeof(info.token), "%s", m.writer);
    *out = info;
    *out_len = n;
    return RC_OK;
}

static enum rc oci_get(struct remote *r, const char *key, const char *tag, uint64_t offset,
                       void *data, size_t len, struct err *err)
{
    struct oci *o = oci_of(r);
    CLEANUP(oci_manifest_done) struct oci_manifest m = {.key = NULL};
    (void)key;
    enum rc rc = manifest_of_digest(o, tag, &m, err);
    return rc ? rc : read_layers(o, &m, offset, data, len, err);
}

/* ---- blobs ---- */

static enum rc has_blob(struct oci *o, const char *digest, bool *out, struct err *err)
{
    CLEANUP(mem_freep) char *url = url_of(o, "blobs", digest);
    CLEANUP(http_response_done) struct http_response a = {0};
    struct call c = {.oci = o, .method = "HEAD", .url = url};
    const struct http_request more = {.redirects = REDIRECTS};
    enum rc rc = perform(&c, &more, &a, err);
    if (rc && rc != RC_NOT_FOUND)
        return rc;
    *out = !rc;
    return RC_OK;
}

/* Where a blob is to be sent to; out: the caller's (free). */
static enum rc begin_blob(struct oci *o, char **out, struct err *err)
{
    CLEANUP(mem_freep) char *url = url_of(o, "blobs", "uploads/");
    CLEANUP(http_response_done) struct http_response a = {0};
    struct call c = {.oci = o, .method = "POST", .url = url, .has_body = true};
    const struct http_request more = {.repeat = HTTP_REPEAT_YES};
    enum rc rc = perform(&c, &more, &a, err);
    const char *to = rc ? NULL : http_header(&a, "location");
    if (rc)
        return rc;
    if (to && *to == '/')
        *out = mem_asprintf("%s%s", o->base, to);
    else if (to && strncmp(to, o->base, strlen(o->base)) == 0 && to[strlen(o->base)] == '/')
        *out = mem_strdup(to); /* to another place our credentials do not go */
    else
        return err_set(err, RC_CORRUPT, "the registry does not say where to send a blob");
    return RC_OK;
}

/* A blob that is there already is not sent.  What is broken off is sent anew from its begin. */
static enum rc put_blob(struct oci *o, const void *data, size_t len, const atomic_bool *cancel,
                        char digest[OCI_DIGEST_LEN + 1], struct err *err)
{
    bool there = false;
    CLEANUP(mem_freep) char *place = NULL;
    digest_text(data, len, digest);
    enum rc rc = has_blob(o, digest, &there, err);
    for (unsigned tries = 0; !rc && !there && tries < 3; tries++) {
        CLEANUP(http_response_done) struct http_response a = {0};
        free(STEAL(place));
        rc = begin_blob(o, &place, err);
        if (rc || !place)
            return rc;
        CLEANUP(mem_freep)
        char *url = mem_asprintf("%s%cdigest=%s", place, strchr(place, '?') ? '&' : '?', digest);
        struct call c = {.oci = o,
                         .method = "PUT",
                         .url = url,
                         .body = data,
                         .body_len = len,
                         .has_body = true,
                         .type = "application/octet-stream"};
        const struct http_request more = {.cancel = cancel};
        rc = perform(&c, &more, &a, err);
        there = !rc;
        /* A try whose answer was lost has ended the upload: then the blob is there. */
        if (rc == RC_NOT_FOUND || rc == RC_CORRUPT)
            rc = has_blob(o, digest, &there, err);
    }
    return rc || there ? rc : err_set(err, RC_UNAVAILABLE, "the registry loses what it is sent");
}

static enum rc put_config(struct oci *o, struct err *err)
{
    char digest[OCI_DIGEST_LEN + 1];
    (void)pthread_mutex_lock(&o->lock);
    bool there = o->has_config;
    (void)pthread_mutex_unlock(&o->lock);
    enum rc rc = there ? RC_OK : put_blob(o, "{}", 2, NULL, digest, err);
    (void)pthread_mutex_lock(&o->lock);
    o->has_config = o->has_config || !rc;
    (void)pthread_mutex_unlock(&o->lock);
    return rc;
}

/* ---- publishing ---- */

static void delete_manifest(struct oci *o, const char *digest)
{
    CLEANUP(mem_freep) char *url = url_of(o, "manifests", digest);
    CLEANUP(http_response_done) struct http_response a = {0};
    struct call c = {.oci = o, .method = "DELETE", .url = url};
    const struct http_request more = {.deadline = clock_now() + PUBLISH_NS};
    (void)!perform(&c, &more, &a, NULL); /* left to the registry's garbage collection */
}

/* Give the tag to our manifest.  A registry has no "if absent", so two who do this at the same
 * moment from different processes may both be told that they were first (drivers.h). */
static enum rc publish(struct remote_upload *u, const char *tag, const struct buf *text,
                       struct err *err)
{
    struct oci *o = oci_of(u->remote);
    char old[OCI_DIGEST_LEN + 1] = "", digest[OCI_DIGEST_LEN + 1];
    CLEANUP(oci_manifest_done) struct oci_manifest there = {.key = NULL};
    enum rc rc = get_manifest(o, tag, &there, old, err);
    if (!rc && !u->base.replace)
        return there.writer && strcmp(there.writer, u->token) == 0
                   ? RC_OK
                   : err_set(err, RC_EXISTS, "it is there already");
    if (rc && rc != RC_NOT_FOUND && rc != RC_CORRUPT)
        return rc;
    CLEANUP(mem_freep) char *url = url_of(o, "manifests", tag);
    CLEANUP(http_response_done) struct http_response a = {0};
    struct call c = {.oci = o,
                     .method = "PUT",
                     .url = url,
                     .body = text->data,
                     .body_len = text->len,
                     .has_body = true,
                     .type = OCI_MANIFEST};
    digest_text(text->data, text->len, digest);
    bool replaced = rc == RC_OK && strcmp(old, digest) != 0;
    const struct http_request more = {.cancel = &u->cancel};
    rc = perform(&c, &more, &a, err);
    if (!rc && replaced)
        delete_manifest(o, old);
    return rc;
}

static enum rc put_manifest(struct remote_upload *u, struct oci_layer *layers, size_t n,
                            struct err *err)
{
    struct oci *o = oci_of(u->remote);
    char tag[OCI_TAG_MAX + 1];
    CLEANUP(buf_done) struct buf text = {.max = OCI_MANIFEST_MAX};
    const struct oci_manifest m = {
        .key = u->base.key, .writer = u->token, .layers = layers, .n = n};
    oci_tag(u->base.key, tag);
    oci_manifest_format(&m, &text);
    if (text.overflowed)
        return err_set(err, RC_TOO_BIG, "it has too many parts for a manifest");
    enum rc rc = put_config(o, err);
    if (rc)
        return rc;
    (void)pthread_mutex_lock(&o->in);
    rc = publish(u, tag, &text, err);
    (void)pthread_mutex_unlock(&o->in);
    return rc;
}

static enum rc oci_put(struct remote_upload *u, const void *data, size_t len, struct err *err)
{
    struct oci_layer layer = {.size = len};
    enum rc rc =
        len ? put_blob(oci_of(u->remote), data, len, &u->cancel, layer.digest, err) : RC_OK;
    return rc ? rc : put_manifest(u, &layer, len ? 1 : 0, err);
}

static enum rc oci_begin(struct remote_upload *u, struct err *err)
{
    (void)err;
    u->id = mem_strdup("parts"); /* each is a blob of its own */
    return RC_OK;
}

static enum rc oci_put_part(struct remote_upload *u, unsigned number, const void *data, size_t len,
                            char tag[REMOTE_TAG_MAX], struct err *err)
{
    char digest[OCI_DIGEST_LEN + 1];
    (void)number;
    enum rc rc = put_blob(oci_of(u->remote), data, len, &u->cancel, digest, err);
    if (!rc)
        (void)snprintf(tag, REMOTE_TAG_MAX, "%s %zu", digest, len);
    return rc;
}

static enum rc oci_finish(struct remote_upload *u, struct err *err)
{
    CLEANUP(mem_freep) struct oci_layer *layers = mem_zalloc((u->n_parts + 1) * sizeof(*layers));
    for (unsigned i = 0; i < u->n_parts; i++)
        if (sscanf(u->tags[i], "%71s %" SCNu64, layers[i].digest, &layers[i].size) != 2)
            return err_set(err, RC_CORRUPT, "part %u was not sent", i + 1);
    return put_manifest(u, layers, u->n_parts, err);
}

static void oci_abandon(struct remote_upload *u)
{
    (void)u; /* blobs that no manifest names are the registry's to collect */
}

/* ---- listing ---- */

/* One tag: its size is in its manifest. */
static enum rc list_tag(struct oci *o, const char *tag, const char *prefix, struct buf *listed,
                        struct err *err)
{
    char key[BACKEND_KEY_MAX + 1], digest[OCI_DIGEST_LEN + 1];
    CLEANUP(oci_manifest_done) struct oci_manifest m = {.key = NULL};
    oci_key(tag, key);
    if ((!*key && strncmp(tag, "_x", 2) != 0) ||
        (*key && strncmp(key, prefix, strlen(prefix)) != 0))
        return RC_OK;
    enum rc rc = get_manifest(o, tag, &m, digest, err);
    if (rc == RC_NOT_FOUND || rc == RC_CORRUPT) /* just removed, or nothing of ours */
        return RC_OK;
    const char *name = *key ? key : m.key;
    if (!rc && name && strncmp(name, prefix, strlen(prefix)) == 0)
        remote_listed(&o->remote, name, m.size, listed);
    return rc;
}

static enum rc oci_list(struct remote *r, const char *prefix, struct buf *marker,
                        struct buf *listed, struct err *err)
{
    struct oci *o = oci_of(r);
    CLEANUP(buf_done) struct buf url = BUF_INIT;
    CLEANUP(http_response_done) struct http_response a = {0};
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    buf_addf(&url, "%s/v2/%s/tags/list?n=%d", o->base, o->repository, PAGE);
    if (marker->len) {
        buf_adds(&url, "&last=");
        http_escape(buf_str(marker), "", &url);
    }
    buf_cut(marker, 0);
    struct call c = {.oci = o, .method = "GET", .url = buf_str(&url)};
    enum rc rc = perform(&c, NULL, &a, err);
    if (rc == RC_NOT_FOUND)
        return RC_OK; /* a repository begins with its first object */
    if (!rc)
        rc = json_parse("tags", buf_str(&a.body), a.body.len, &doc, err);
    if (rc)
        return rc;
    yyjson_val *tags = yyjson_obj_get(yyjson_doc_get_root(doc), "tags"), *v;
    size_t i, max;
    yyjson_arr_foreach(tags, i, max, v)
    {
        const char *tag = yyjson_get_str(v);
        rc = tag ? list_tag(o, tag, prefix, listed, err) : RC_OK;
        if (rc)
            return rc;
        if (tag && i + 1 == max && http_header(&a, "link"))
            buf_adds(marker, tag);
    }
    return RC_OK;
}

static enum rc oci_remove(struct remote *r, const char *key, struct err *err)
{
    struct oci *o = oci_of(r);
    char tag[OCI_TAG_MAX + 1], digest[OCI_DIGEST_LEN + 1];
    CLEANUP(oci_manifest_done) struct oci_manifest m = {.key = NULL};
    oci_tag(key, tag);
    enum rc rc = get_manifest(o, tag, &m, digest, err);
    if (rc)
        return rc;
    CLEANUP(mem_freep) char *url = url_of(o, "manifests", digest);
    CLEANUP(http_response_done) struct http_response a = {0};
    struct call c = {.oci = o, .method = "DELETE", .url = url};
    return perform(&c, NULL, &a, err);
}

/* ---- life ---- */

static void oci_after_fork(struct remote *r)
{
    struct oci *o = oci_of(r);
    (void)pthread_mutex_init(&o->lock, NULL);
    (void)pthread_mutex_init(&o->in, NULL);
    oci_auth_after_fork(o->auth);
}

static void oci_free(struct remote *r)
{
    struct oci *o = oci_of(r);
    oci_auth_freep(&o->auth);
    remote_done(r);
    for (unsigned i = 0; i < KNOWN_MAX; i++)
        oci_manifest_done(&o->known[i].manifest);
    (void)pthread_mutex_destroy(&o->lock);
    (void)pthread_mutex_destroy(&o->in);
    free(o->registry);
    free(o->repository);
    free(o->base);
    free(o);
}

static const struct remote_ops oci_ops = {.backend = REMOTE_BACKEND_OPS("oci"),
                                          .parts_max = PARTS_MAX,
                                          .by_tag = true,
                                          .look = oci_look,
                                          .get = oci_get,
                                          .put = oci_put,
                                          .begin = oci_begin,
                                          .put_part = oci_put_part,
                                          .finish = oci_finish,
                                          .abandon = oci_abandon,
                                          .list = oci_list,
                                          .remove = oci_remove,
                                          .after_fork = oci_after_fork,
                                          .free = oci_free};

/* ---- settings ---- */

static bool is_repository(const char *text)
{
    size_t n = strlen(text);
    bool good = n > 0 && n <= 255 && text[n - 1] != '/';
    for (size_t i = 0; good && i < n; i++) {
        bool plain = (text[i] >= 'a' && text[i] <= 'z') || (text[i] >= '0' && text[i] <= '9');
        good = plain || (i > 0 && text[i - 1] != '/' && strchr("._-/", text[i]));
    }
    return good;
}

static bool is_registry(const char *text)
{
    return *text && !strpbrk(text, "@/?# ");
}

static enum rc configure(struct oci *o, const struct backend_url *u,
                         const struct backend_options *options, struct err *err)
{
    static const char *const known[] = {"plain", "ca", NULL};
    const char *plain = backend_url_get(u, "plain");
    enum rc rc = backend_url_only(u, known, err);
    if (rc)
        return rc;
    if (!is_registry(u->host) || !is_repository(u->path))
        return err_set(err, RC_INVALID,
                       "want oci://REGISTRY[:PORT]/REPOSITORY, the repository in lower case");
    if (plain && strcmp(plain, "true") != 0 && strcmp(plain, "false") != 0)
        return err_set(err, RC_INVALID, "plain must be true (http) or false (https)");
    o->registry = mem_strdup(u->host);
    o->repository = mem_strdup(u->path);
    bool http = plain && strcmp(plain, "true") == 0;
    o->base = mem_asprintf("%s://%s", http ? "http" : "https", u->host);
    CLEANUP(mem_freep)
    char *scope = mem_asprintf("repository:%s:pull,push,delete", o->repository);
    return oci_auth_open(options, o->registry, o->base, scope, o->remote.http, &o->auth, err);
}

enum rc backend_oci_open(const struct backend_url *u, const struct backend_options *o,
                         struct backend **out, struct err *err)
{
    struct oci *c = mem_zalloc(sizeof(*c));
    struct http_client *http = NULL;
    const struct http_options h = {.ca_file = backend_url_get(u, "ca"),
                                   .bytes_per_second = o->bytes_per_second};
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_mutex_init(&c->in, NULL);
    enum rc rc = http_open(&h, &http, err);
    if (!rc)
        rc = remote_init(&c->remote, &oci_ops, "", http, err);
    if (rc)
        http_closep(&http);
    if (!rc)
        rc = configure(c, u, o, err);
    if (rc)
        oci_free(&c->remote);
    else
        *out = &c->remote.base;
    return rc;
}

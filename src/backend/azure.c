#include "backend/azure_identity.h"
#include "backend/azure_sign.h"
#include "backend/drivers.h"
#include "backend/remote.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/num.h"
#include "codec/base64.h"
#include "codec/xml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define VERSION "2021-08-06" /* of the protocol */
#define PARTS_MAX 50000
#define ERROR_MAX ((size_t)64 << 10)
#define LIST_MAX ((size_t)8 << 20)
#define WRITER "x-ms-meta-chrekwriter" /* names of metadata are identifiers */

/* The account of the emulator, which everybody knows. */
#define EMULATOR "devstoreaccount1"
#define EMULATOR_KEY                                                                               \
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

struct azure {
    struct remote remote;
    char *account, *container;
    char *base;                      /* URL of the account: scheme and host */
    char *path;                      /* of the container */
    char *sas;                       /* of the query, without `?`; NULL when there is another way */
    struct buf key;                  /* decoded; empty when there is another way */
    struct azure_identity *identity; /* NULL when there is another way */
};

/* A part of the query; in order of names. */
struct pair {
    const char *name, *value;
};

struct call {
    struct azure *azure;
    const char *method;
    const char *key; /* NULL: the container */
    const struct pair *query;
    size_t n_query;
    const void *body;
    size_t body_len;
    bool has_body, makes, fresh, renewed;
    const char *token;    /* to mark the object, or NULL */
    const char *if_match; /* or NULL */
    bool only_new;
    char *path;                /* of the URL */
    struct remote_error error; /* of the answer */
};

/* ---- one request ---- */

/* Headers of the protocol; as they are sent and as they are signed. */
static void ms_headers(const struct call *c, struct http_try *t, struct buf *out)
{
    char date[AZURE_DATE_LEN + 1];
    azure_date(time(NULL), date);
    const struct pair all[] = {{"x-ms-blob-type", c->makes && !c->n_query ? "BlockBlob" : NULL},
                               {"x-ms-date", date},
                               {WRITER, c->token},
                               {"x-ms-version", VERSION}};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (all[i].value) {
            http_try_header(t, "%s: %s", all[i].name, all[i].value);
            buf_addf(out, "%s:%s\n", all[i].name, all[i].value);
        }
}

static enum rc sign(void *arg, struct http_try *t, struct err *err)
{
    struct call *c = arg;
    struct azure *z = c->azure;
    CLEANUP(buf_done) struct buf headers = BUF_INIT;
    CLEANUP(buf_done) struct buf query = BUF_INIT;
    CLEANUP(buf_done) struct buf authorization = BUF_INIT;
    CLEANUP(mem_freep) char *token = NULL;
    ms_headers(c, t, &headers);
    if (c->if_match)
        http_try_header(t, "If-Match: %s", c->if_match);
    if (c->only_new)
        http_try_header(t, "If-None-Match: *");
    if (z->identity) {
        enum rc rc = azure_identity_token(z->identity, c->fresh, &token, err);
        if (rc)
            return rc;
        c->fresh = false;
        http_try_header(t, "Authorization: Bearer %s", token);
    }
    if (!z->key.len)
        return RC_OK; /* the query has the signature */
    for (size_t i = 0; i < c->n_query; i++)
        buf_addf(&query, "\n%s:%s", c->query[i].name, c->query[i].value);
    azure_sign(&(struct azure_signing){.account = z->account,
                                       .key = z->key.data,
                                       .key_len = z->key.len,
                                       .method = c->method,
                                       .body_len = c->body_len,
                                       .if_match = c->if_match ? c->if_match : "",
                                       .if_none_match = c->only_new ? "*" : "",
                                       .range = http_try_range(t),
                                       .ms_headers = buf_str(&headers),
                                       .path = c->path,
                                       .query = buf_str(&query)},
               &authorization);
    http_try_header(t, "Authorization: %s", buf_str(&authorization));
    return RC_OK;
}

static bool again(void *arg, unsigned status, const struct buf *body)
{
    struct call *c = arg;
    struct remote_error e;
    remote_read_error(buf_str(body), body->len, &e);
    if (status == 401 && c->azure->identity && !c->renewed)
        return c->fresh = c->renewed = true;
    return strcmp(e.code, "ContainerBeingDeleted") == 0 || strcmp(e.code, "OperationTimedOut") == 0;
}

static bool is_code(const struct remote_error *e, const char *code)
{
    return strcmp(e->code, code) == 0;
}

static enum rc explain(const struct call *c, const struct http_response *a, struct err *err)
{
    const struct remote_error *e = &c->error;
    const struct azure *z = c->azure;
    if (is_code(e, "ContainerNotFound") || is_code(e, "InvalidResourceName"))
        return err_set(err, RC_INVALID, "there is no container '%s': create it, or correct the URL",
                       z->container);
    if (is_code(e, "AuthenticationFailed") || a->status == 401)
        return err_set(
            err, RC_DENIED,
            "the server does not accept the %s of account '%s', or this machine's clock is "
            "wrong: %.150s",
            z->key.len ? "key"
            : z->sas   ? "SAS"
                       : "identity",
            z->account, e->message);
    if (a->status == 403)
        return err_set(
            err, RC_DENIED,
            "access denied: %s %.150s (needed is the role Storage Blob Data Contributor)", e->code,
            e->message);
    if (is_code(e, "AccountQuotaExceeded") || is_code(e, "InsufficientAccountPermissions") ||
        a->status == 507)
        return err_set(err, RC_NO_SPACE, "the account's quota is full: %s", e->code);
    if (is_code(e, "BlobAlreadyExists"))
        return err_set(err, RC_EXISTS, "it is there already");
    if (a->status == 404)
        return err_set(err, RC_NOT_FOUND, "there is no such object");
    if (a->status == 412)
        return err_set(err, c->if_match ? RC_NOT_FOUND : RC_EXISTS, "%s",
                       c->if_match ? "another object has taken its place" : "it is there already");
    enum rc rc = http_status_rc(a->status);
    return err_set(err, rc ? rc : RC_IO, "status %u %s%s%.200s", a->status, e->code,
                   e->message[0] ? ": " : "", e->message);
}

static void add_url(const struct call *c, struct buf *out)
{
    const struct azure *z = c->azure;
    buf_addf(out, "%s%s", z->base, c->path);
    for (size_t i = 0; i < c->n_query; i++) {
        buf_addf(out, "%s%s=", i ? "&" : "?", c->query[i].name);
        http_escape(c->query[i].value, "", out);
    }
    if (z->sas)
        buf_addf(out, "%s%s", c->n_query ? "&" : "?", z->sas);
}

/* Do it; more: what the http_request has beyond the call.  RC_OK: an answer 200..299 */
static enum rc perform(struct call *c, const struct http_request *more, struct http_response *out,
                       struct err *err)
{
    struct azure *z = c->azure;
    struct http_response a = {0};
    struct http_request r = more ? *more : (struct http_request){.method = NULL};
    CLEANUP(buf_done) struct buf path = BUF_INIT;
    CLEANUP(buf_done) struct buf url = BUF_INIT;
    buf_adds(&path, z->path);
    if (c->key) {
        buf_adds(&path, "/");
        http_escape(z->remote.prefix, "/", &path);
        http_escape(c->key, "/", &path);
    }
    c->path = path.data;
    add_url(c, &url);
    r.method = c->method;
    r.url = buf_str(&url);
    r.body = c->body;
    r.body_len = c->body_len;
    r.has_body = c->has_body;
    r.prepare = sign;
    r.prepare_arg = c;
    r.again = again;
    r.again_arg = c;
    enum rc rc = http_do(z->remote.http, &r, &a, err);
    c->path = NULL;
    if (rc)
        return rc;
    if (http_status_rc(a.status) == RC_OK) {
        *out = a;
        return RC_OK;
    }
    const char *code = http_header(&a, "x-ms-error-code");
    if (a.body.len <= ERROR_MAX)
        remote_read_error(buf_str(&a.body), a.body.len, &c->error);
    if (code && !c->error.code[0]) /* of a HEAD */
        (void)snprintf(c->error.code, sizeof(c->error.code), "%s", code);
    out->status = a.status;
    rc = explain(c, &a, err);
    http_response_done(&a);
    return rc;
}

static void note_info(const struct http_response *a, struct remote_info *out)
{
    const char *tag = http_header(a, "etag"), *token = http_header(a, WRITER);
    if (tag && strlen(tag) < sizeof(out->tag))
        memcpy(out->tag, tag, strlen(tag) + 1);
    if (token && strlen(token) < sizeof(out->token))
        memcpy(out->token, token, strlen(token) + 1);
}

static struct azure *azure_of(struct remote *r)
{
    return (struct azure *)r;
}

/* ---- reading ---- */

static enum rc azure_look(struct remote *r, const char *key, void *data, size_t len,
                          size_t *out_len, struct remote_info *out, struct err *err)
{
    struct call c = {.azure = azure_of(r), .method = "GET", .key = key};
    const struct http_request more = {
        .range = true, .range_short = true, .range_len = len, .into = data, .into_len = len};
    CLEANUP(http_response_done) struct http_response a = {0};
    struct remote_info info = {0};
    enum rc rc = perform(&c, &more, &a, err);
    if (rc && a.status == 416) { /* nothing is in it: no range is in it either */
        c = (struct call){.azure = azure_of(r), .method = "HEAD", .key = key};
        a = (struct http_response){0};
        rc = perform(&c, NULL, &a, err);
    } else if (!rc) {
        rc = remote_size(&a, &info.size, err);
    }
    if (rc)
        return rc;
    note_info(&a, &info);
    *out = info;
    *out_len = (size_t)a.received;
    return RC_OK;
}

static enum rc azure_get(struct remote *r, const char *key, const char *tag, uint64_t offset,
                         void *data, size_t len, struct err *err)
{
    struct call c = {
        .azure = azure_of(r), .method = "GET", .key = key, .if_match = *tag ? tag : NULL};
    const struct http_request more = {
        .range = true, .range_offset = offset, .range_len = len, .into = data, .into_len = len};
    CLEANUP(http_response_done) struct http_response a = {0};
    return perform(&c, &more, &a, err);
}

/* ---- writing ---- */

/* The object is there, but perhaps it is ours: an answer was lost, and the request sent again. */
static bool is_ours(struct remote_upload *u)
{
    struct call c = {.azure = azure_of(u->remote), .method = "HEAD", .key = u->base.key};
    CLEANUP(http_response_done) struct http_response a = {0};
    struct remote_info info = {0};
    if (perform(&c, NULL, &a, NULL) != RC_OK)
        return false;
    note_info(&a, &info);
    return strcmp(info.token, u->token) == 0;
}

static enum rc azure_put(struct remote_upload *u, const void *data, size_t len, struct err *err)
{
    struct call c = {.azure = azure_of(u->remote),
                     .method = "PUT",
                     .key = u->base.key,
                     .body = data,
                     .body_len = len,
                     .has_body = true,
                     .makes = true,
                     .token = u->token,
                     .only_new = !u->base.replace};
    const struct http_request more = {.cancel = &u->cancel};
    CLEANUP(http_response_done) struct http_response a = {0};
    enum rc rc = perform(&c, &more, &a, err);
    return rc == RC_EXISTS && is_ours(u) ? RC_OK : rc;
}

/* Blocks need no beginning: what begins their names keeps those of two writers apart. */
static enum rc azure_begin(struct remote_upload *u, struct err *err)
{
    (void)err;
    u->id = mem_strdup(u->token);
    return RC_OK;
}

static enum rc azure_put_part(struct remote_upload *u, unsigned number, const void *data,
                              size_t len, char tag[REMOTE_TAG_MAX], struct err *err)
{
    char name[64];
    CLEANUP(buf_done) struct buf id = BUF_INIT;
    int n = snprintf(name, sizeof(name), "%.16s-%05u", u->id, number);
    base64_format(name, (size_t)n, &id);
    const struct pair query[] = {{"blockid", buf_str(&id)}, {"comp", "block"}};
    struct call c = {.azure = azure_of(u->remote),
                     .method = "PUT",
                     .key = u->base.key,
                     .query = query,
                     .n_query = ARRAY_LEN(query),
                     .body = data,
                     .body_len = len};
    const struct http_request more = {.cancel = &u->cancel};
    CLEANUP(http_response_done) struct http_response a = {0};
    enum rc rc = perform(&c, &more, &a, err);
    if (!rc)
        memcpy(tag, buf_str(&id), id.len + 1);
    return rc;
}

static enum rc azure_finish(struct remote_upload *u, struct err *err)
{
    static const struct pair query[] = {{"comp", "blocklist"}};
    CLEANUP(buf_done) struct buf body = BUF_INIT;
    CLEANUP(http_response_done) struct http_response a = {0};
    buf_adds(&body, "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
    for (unsigned i = 0; i < u->n_parts; i++)
        buf_addf(&body, "<Latest>%s</Latest>", u->tags[i]);
    buf_adds(&body, "</BlockList>");
    struct call c = {.azure = azure_of(u->remote),
                     .method = "PUT",
                     .key = u->base.key,
                     .query = query,
                     .n_query = ARRAY_LEN(query),
                     .body = buf_str(&body),
                     .body_len = body.len,
                     .makes = true,
                     .token = u->token,
                     .only_new = !u->base.replace};
    enum rc rc = perform(&c, NULL, &a, err);
    bool lost = is_code(&c.error, "InvalidBlockList"); /* another's commit has dropped our blocks */
    if ((rc == RC_EXISTS || lost) && is_ours(u))
        return RC_OK;
    return lost ? err_set(err, RC_EXISTS, "another has written it meanwhile") : rc;
}

/* Blocks that nobody commits are dropped by the server after a week; there is no other way. */
static void azure_abandon(struct remote_upload *u)
{
    (void)u;
}

/* ---- the rest ---- */

struct page {
    const struct remote *remote;
    struct buf *marker, *listed;
    struct buf name;
    uint64_t size;
    bool has_size;
};

static enum rc note_blob(void *arg, const char *path, const char *text, struct err *err)
{
    struct page *p = arg;
    if (strcmp(path, "/EnumerationResults/Blobs/Blob/Name") == 0) {
        buf_cut(&p->name, 0);
        buf_adds(&p->name, text);
    } else if (strcmp(path, "/EnumerationResults/Blobs/Blob/Properties/Content-Length") == 0) {
        p->has_size = true;
        return num_parse_u64(text, 0, UINT64_MAX, &p->size, err) ? RC_CORRUPT : RC_OK;
    } else if (strcmp(path, "/EnumerationResults/Blobs/Blob") == 0) {
        if (!p->name.len || !p->has_size)
            return err_set(err, RC_CORRUPT, "the listing has an object without name or size");
        remote_listed(p->remote, buf_str(&p->name), p->size, p->listed);
        buf_cut(&p->name, 0);
        p->has_size = false;
    } else if (strcmp(path, "/EnumerationResults/NextMarker") == 0) {
        buf_adds(p->marker, text);
    }
    return RC_OK;
}

static enum rc azure_list(struct remote *r, const char *prefix, struct buf *marker,
                          struct buf *listed, struct err *err)
{
    CLEANUP(mem_freep) char *whole = mem_asprintf("%s%s", r->prefix, prefix);
    CLEANUP(http_response_done) struct http_response a = {0};
    const struct pair query[] = {{"comp", "list"},
                                 {"marker", buf_str(marker)},
                                 {"maxresults", "1000"},
                                 {"prefix", whole},
                                 {"restype", "container"}};
    struct call c = {
        .azure = azure_of(r), .method = "GET", .query = query, .n_query = ARRAY_LEN(query)};
    const struct http_request more = {.body_max = LIST_MAX};
    enum rc rc = perform(&c, &more, &a, err);
    if (rc)
        return rc;
    struct page p = {.remote = r, .marker = marker, .listed = listed};
    buf_cut(marker, 0);
    rc = xml_read("listing", buf_str(&a.body), a.body.len, note_blob, &p, err);
    buf_done(&p.name);
    return rc;
}

static enum rc azure_remove(struct remote *r, const char *key, struct err *err)
{
    struct call c = {.azure = azure_of(r), .method = "DELETE", .key = key};
    CLEANUP(http_response_done) struct http_response a = {0};
    return perform(&c, NULL, &a, err);
}

static void azure_after_fork(struct remote *r)
{
    if (azure_of(r)->identity)
        azure_identity_after_fork(azure_of(r)->identity);
}

static void azure_free(struct remote *r)
{
    struct azure *z = azure_of(r);
    remote_done(r);
    azure_identity_freep(&z->identity);
    if (z->key.data)
        explicit_bzero(z->key.data, z->key.len);
    buf_done(&z->key);
    free(z->account);
    free(z->container);
    free(z->base);
    free(z->path);
    free(z->sas);
    free(z);
}

static const struct remote_ops azure_ops = {.backend = REMOTE_BACKEND_OPS("azure"),
                                            .parts_max = PARTS_MAX,
                                            .look = azure_look,
                                            .get = azure_get,
                                            .put = azure_put,
                                            .begin = azure_begin,
                                            .put_part = azure_put_part,
                                            .finish = azure_finish,
                                            .abandon = azure_abandon,
                                            .list = azure_list,
                                            .remove = azure_remove,
                                            .after_fork = azure_after_fork,
                                            .free = azure_free};

/* ---- settings ---- */

static bool is_name(const char *text)
{
    size_t n = strlen(text);
    return n >= 3 && n <= 63 && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

/* A setting: of the URL, the connection string, the environment; the caller's, or NULL. */
static char *setting(const struct backend_url *u, const struct backend_options *o,
                     const char *connection, const char *name, const char *in_connection,
                     const char *variable)
{
    const char *value = name ? backend_url_get(u, name) : NULL;
    if (value && *value)
        return mem_strdup(value);
    char *found =
        connection && in_connection ? azure_connection_get(connection, in_connection) : NULL;
    if (found || connection) /* it says all, or the rest is not of this account */
        return found;
    value = variable && o->env ? o->env(variable) : NULL;
    return value && *value ? mem_strdup(value) : NULL;
}

/* Split an endpoint into `base` and the beginning of `path`. */
static enum rc set_place(struct azure *z, const char *endpoint, const char *suffix, struct err *err)
{
    CLEANUP(mem_freep)
    char *usual =
        mem_asprintf("https://%s.blob.%s", z->account, suffix ? suffix : "core.windows.net");
    endpoint = endpoint ? endpoint : usual;
    if (strncasecmp(endpoint, "https://", 8) != 0 && strncasecmp(endpoint, "http://", 7) != 0)
        return err_set(err, RC_INVALID, "endpoint must begin with http:// or https://");
    const char *host = strchr(endpoint, '/') + 2;
    size_t host_len = strcspn(host, "/?#"), len = strlen(host);
    while (len > host_len && host[len - 1] == '/')
        len--;
    if (host_len == 0 || memchr(host, '@', host_len) || strpbrk(host, "?#"))
        return err_set(err, RC_INVALID, "endpoint must be http[s]://HOST[:PORT][/ACCOUNT]");
    z->base = mem_asprintf("%.*s", (int)(host - endpoint) + (int)host_len, endpoint);
    z->path = mem_asprintf("%.*s/%s", (int)(len - host_len), host + host_len, z->container);
    return RC_OK;
}

/* Key, SAS, or an identity: the first that is there. */
static enum rc set_credentials(struct azure *z, const char *key, const char *sas,
                               const struct backend_url *u, const struct backend_options *o,
                               struct err *err)
{
    if (key && base64_parse(key, strlen(key), &z->key, NULL) != RC_OK)
        return err_set(err, RC_INVALID, "the key of account '%s' is no base64", z->account);
    if (key)
        return RC_OK;
    if (sas) {
        z->sas = mem_strdup(sas + (*sas == '?'));
        return RC_OK;
    }
    return azure_identity_open(o->env, backend_url_get(u, "client_id"), backend_url_get(u, "ca"),
                               &z->identity, err);
}

static enum rc configure(struct azure *z, const struct backend_url *u,
                         const struct backend_options *o, struct err *err)
{
    static const char *const known[] = {"account", "endpoint", "client_id", "ca", NULL};
    enum rc rc = backend_url_only(u, known, err);
    if (!rc && !is_name(u->host))
        rc = err_set(err, RC_INVALID, "'%.64s' is no name of a container", u->host);
    if (rc)
        return rc;
    const char *given = o->env ? o->env("AZURE_STORAGE_CONNECTION_STRING") : NULL;
    CLEANUP(mem_freep)
    char *emulated = given ? azure_connection_get(given, "UseDevelopmentStorage") : NULL;
    const char *all = emulated ? "AccountName=" EMULATOR ";AccountKey=" EMULATOR_KEY
                                 ";BlobEndpoint=http://127.0.0.1:10000/" EMULATOR
                      : given && *given ? given
                                        : NULL;
    CLEANUP(mem_freep) char *key = setting(u, o, all, NULL, "AccountKey", "AZURE_STORAGE_KEY");
    CLEANUP(mem_freep)
    char *sas = setting(u, o, all, NULL, "SharedAccessSignature", "AZURE_STORAGE_SAS_TOKEN");
    CLEANUP(mem_freep) char *endpoint = setting(u, o, all, "endpoint", "BlobEndpoint", NULL);
    CLEANUP(mem_freep) char *suffix = setting(u, o, all, NULL, "EndpointSuffix", NULL);
    z->account = setting(u, o, all, "account", "AccountName", "AZURE_STORAGE_ACCOUNT");
    z->container = mem_strdup(u->host);
    if (!z->account)
        return err_set(err, RC_INVALID,
                       "which storage account? add ?account=NAME, or set AZURE_STORAGE_ACCOUNT");
    if (!is_name(z->account))
        return err_set(err, RC_INVALID, "'%.64s' is no name of an account", z->account);
    rc = set_place(z, endpoint, suffix, err);
    return rc ? rc : set_credentials(z, key, sas, u, o, err);
}

enum rc backend_azure_open(const struct backend_url *u, const struct backend_options *o,
                           struct backend **out, struct err *err)
{
    struct azure *z = mem_zalloc(sizeof(*z));
    struct http_client *http = NULL;
    const struct http_options h = {.ca_file = backend_url_get(u, "ca"),
                                   .bytes_per_second = o->bytes_per_second};
    enum rc rc = http_open(&h, &http, err);
    if (!rc)
        rc = remote_init(&z->remote, &azure_ops, u->path, http, err);
    if (rc)
        http_closep(&http);
    if (!rc)
        rc = configure(z, u, o, err);
    if (rc)
        azure_free(&z->remote);
    else
        *out = &z->remote.base;
    return rc;
}

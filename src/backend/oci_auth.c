#include "backend/oci_auth.h"

#include "backend/oci_helper.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "codec/base64.h"
#include "codec/json.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define FILE_MAX ((size_t)1 << 20)
#define EARLY_NS (30 * CLOCK_S)
#define TOKEN_S 60U /* how long a token lives if nobody says so */
#define ANSWER_NS (30 * CLOCK_S)

enum scheme { SCHEME_UNKNOWN, SCHEME_NONE, SCHEME_BASIC, SCHEME_BEARER };

struct oci_auth {
    char *base, *scope, *registry, *source;
    char *helper; /* that keeps the credentials, or NULL */
    struct http_client *http;
    pthread_mutex_t lock; /* of what follows */
    bool asked;           /* the helper */
    char *basic;          /* base64 of name:password, or NULL */
    char *identity;       /* or a token to get others with, or NULL */
    enum scheme scheme;
    char *realm, *service;
    char *token;
    uint64_t ends; /* clock_now() */
};

static void free_secret(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}

/* ---- credentials ---- */

static const char *env(const struct backend_options *o, const char *name)
{
    const char *value = o->env ? o->env(name) : NULL;
    return value && *value ? value : NULL;
}

static void set_source(struct oci_auth *a, const char *source)
{
    free(a->source);
    a->source = mem_strdup(source);
}

static void set_basic(struct oci_auth *a, const char *text, const char *source)
{
    CLEANUP(buf_done) struct buf encoded = BUF_INIT;
    base64_format(text, strlen(text), &encoded);
    free_secret(a->basic);
    a->basic = mem_strdup(buf_str(&encoded));
    set_source(a, source);
}

static enum rc from_environment(struct oci_auth *a, const struct backend_options *o,
                                struct err *err)
{
    const char *name = env(o, "CHREK_OCI_USERNAME"), *password = env(o, "CHREK_OCI_PASSWORD");
    if (!name && !password)
        return RC_OK;
    if (!name || !password)
        return err_set(err, RC_INVALID,
                       "CHREK_OCI_USERNAME and CHREK_OCI_PASSWORD go together: one is not set");
    CLEANUP(mem_freep) char *both = mem_asprintf("%s:%s", name, password);
    set_basic(a, both, "the environment");
    return RC_OK;
}

static enum rc take_entry(struct oci_auth *a, yyjson_val *entry, const char *path, struct err *err)
{
    const char *auth = json_str(entry, "auth", NULL);
    const char *identity = json_str(entry, "identitytoken", NULL);
    CLEANUP(buf_done) struct buf plain = BUF_INIT;
    if (identity && *identity) {
        a->identity = mem_strdup(identity);
        set_source(a, path);
        return RC_OK;
    }
    if (!auth || !*auth)
        return RC_OK;
    if (base64_parse(auth, strlen(auth), &plain, NULL) != RC_OK || !strchr(buf_str(&plain), ':'))
        return err_set(err, RC_INVALID, "'%s': the credentials of a registry are damaged", path);
    set_basic(a, buf_str(&plain), path);
    return RC_OK;
}

static enum rc from_file(struct oci_auth *a, const char *path, const char *registry,
                         struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    enum rc rc = fs_read_file(AT_FDCWD, path, FILE_MAX, &text, err);
    if (rc == RC_NOT_FOUND)
        return RC_OK;
    if (!rc)
        rc = json_parse(path, buf_str(&text), text.len, &doc, err);
    if (rc)
        return rc == RC_CORRUPT ? RC_INVALID : rc;
    yyjson_val *root = yyjson_doc_get_root(doc), *auths = yyjson_obj_get(root, "auths");
    CLEANUP(mem_freep) char *url = mem_asprintf("https://%s", registry);
    yyjson_val *entry = yyjson_obj_get(auths, registry);
    const char *helper = json_str(yyjson_obj_get(root, "credHelpers"), registry, NULL);
    if (!helper) /* what stands in the file itself goes before a keeper of all others */
        rc = take_entry(a, entry ? entry : yyjson_obj_get(auths, url), path, err);
    if (!helper && !a->basic && !a->identity)
        helper = json_str(root, "credsStore", NULL);
    if (!rc && helper && *helper) {
        a->helper = mem_strdup(helper);
        CLEANUP(mem_freep) char *source = mem_asprintf("docker-credential-%.100s", helper);
        set_source(a, source);
    }
    return rc;
}

/* With the lock held: what the helper has now. */
static enum rc ask_helper(struct oci_auth *a, struct err *err)
{
    struct oci_login l = {.user = NULL};
    struct err none = ERR_INIT;
    enum rc rc = oci_helper_ask(a->helper, a->registry, &l, &none);
    a->asked = !rc || rc == RC_NOT_FOUND;
    if (rc == RC_NOT_FOUND)
        return RC_OK; /* then without, as others do */
    if (rc) {
        if (err)
            *err = none;
        return err_ctx(err, rc, "credentials for registry %s", a->registry);
    }
    CLEANUP(mem_freep) char *source = mem_strdup(a->source);
    CLEANUP(mem_freep) char *both = mem_asprintf("%s:%s", l.user, l.secret);
    free_secret(a->identity);
    a->identity = l.is_identity ? mem_strdup(l.secret) : NULL;
    if (!l.is_identity)
        set_basic(a, both, source);
    explicit_bzero(both, strlen(both));
    oci_login_done(&l);
    return RC_OK;
}

static enum rc from_files(struct oci_auth *a, const struct backend_options *o, const char *registry,
                          struct err *err)
{
    const char *home = env(o, "HOME"), *docker = env(o, "DOCKER_CONFIG");
    char *paths[] = {mem_strdup(env(o, "REGISTRY_AUTH_FILE")),
                     docker ? mem_asprintf("%s/config.json", docker) : NULL,
                     home && !docker ? mem_asprintf("%s/.docker/config.json", home) : NULL};
    enum rc rc = RC_OK;
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        if (!rc && !a->source && paths[i])
            rc = from_file(a, paths[i], registry, err);
        free(paths[i]);
    }
    return rc;
}

enum rc oci_auth_open(const struct backend_options *o, const char *registry, const char *base,
                      const char *scope, struct http_client *http, struct oci_auth **out,
                      struct err *err)
{
    struct oci_auth *a = mem_zalloc(sizeof(*a));
    a->base = mem_strdup(base);
    a->scope = mem_strdup(scope);
    a->registry = mem_strdup(registry);
    a->http = http;
    (void)pthread_mutex_init(&a->lock, NULL);
    enum rc rc = from_environment(a, o, err);
    if (!rc && !a->basic)
        rc = from_files(a, o, registry, err);
    if (rc)
        oci_auth_freep(&a);
    else
        *out = a;
    return rc;
}

void oci_auth_freep(struct oci_auth **auth)
{
    struct oci_auth *a = STEAL(*auth);
    if (!a)
        return;
    free_secret(a->basic);
    free_secret(a->identity);
    free_secret(a->token);
    free(a->base);
    free(a->scope);
    free(a->registry);
    free(a->helper);
    free(a->source);
    free(a->realm);
    free(a->service);
    (void)pthread_mutex_destroy(&a->lock);
    free(a);
}

void oci_auth_after_fork(struct oci_auth *a)
{
    (void)pthread_mutex_init(&a->lock, NULL); /* the client is who owns it's */
}

const char *oci_auth_source(const struct oci_auth *a)
{
    return a->source ? a->source : "nowhere";
}

/* ---- what the registry wants ---- */

/* A parameter of WWW-Authenticate: name="value"; the caller's (free), or NULL. */
static char *parameter(const char *header, const char *name)
{
    CLEANUP(mem_freep) char *begin = mem_asprintf("%s=\"", name);
    const char *at = strcasestr(header, begin);
    if (!at)
        return NULL;
    at += strlen(begin);
    return mem_asprintf("%.*s", (int)strcspn(at, "\""), at);
}

static enum rc learn_scheme(struct oci_auth *a, struct err *err)
{
    CLEANUP(mem_freep) char *url = mem_asprintf("%s/v2/", a->base);
    CLEANUP(http_response_done) struct http_response answer = {0};
    const struct http_request r = {.method = "GET", .url = url};
    enum rc rc = http_do(a->http, &r, &answer, err);
    if (rc)
        return rc;
    const char *wants = http_header(&answer, "www-authenticate");
    if (answer.status >= 200 && answer.status <= 299) {
        a->scheme = SCHEME_NONE;
        return RC_OK;
    }
    if (answer.status != 401 || !wants)
        return err_set(err, RC_CORRUPT, "%s/v2/ answers with status %u: is it a registry?", a->base,
                       answer.status);
    if (strncasecmp(wants, "Basic", 5) == 0) {
        a->scheme = SCHEME_BASIC;
        return RC_OK;
    }
    a->realm = parameter(wants, "realm");
    a->service = parameter(wants, "service");
    if (strncasecmp(wants, "Bearer", 6) != 0 || !a->realm)
        return err_set(err, RC_UNSUPPORTED, "the registry wants '%.60s'", wants);
    a->scheme = SCHEME_BEARER;
    return RC_OK;
}

static enum rc take_token(struct oci_auth *a, const struct http_response *answer, struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    enum rc rc = json_parse("token", buf_str(&answer->body), answer->body.len, &doc, err);
    if (rc)
        return rc;
    yyjson_val *root = yyjson_doc_get_root(doc);
    const char *token = json_str(root, "token", json_str(root, "access_token", NULL));
    if (!token || strpbrk(token, "\r\n"))
        return err_set(err, RC_CORRUPT, "the registry's token service gives no token");
    free_secret(a->token);
    a->token = mem_strdup(token);
    a->ends = clock_now() + json_u64(root, "expires_in", TOKEN_S) * CLOCK_S;
    return RC_OK;
}

/* name=value for each, to be in an URL or in the body of a form. */
static void add_field(struct buf *out, const char *name, const char *value)
{
    if (!value)
        return;
    buf_addf(out, "%s%s=", out->len ? "&" : "", name);
    http_escape(value, "", out);
}

static enum rc ask_for_token(struct oci_auth *a, const struct http_request *r, struct err *err)
{
    CLEANUP(http_response_done) struct http_response answer = {0};
    enum rc rc = http_do(a->http, r, &answer, err);
    if (!rc && answer.status != 200)
        rc = err_set(err, http_status_rc(answer.status),
                     "the registry's token service answers with status %u to credentials from %s",
                     answer.status, oci_auth_source(a));
    return rc ? rc : take_token(a, &answer, err);
}

/* By an identity token: OAuth 2, as registries have it. */
static enum rc exchange_token(struct oci_auth *a, struct err *err)
{
    static const char *const headers[] = {"Content-Type: application/x-www-form-urlencoded"};
    CLEANUP(buf_done) struct buf form = BUF_INIT;
    add_field(&form, "grant_type", "refresh_token");
    add_field(&form, "client_id", "chrek");
    add_field(&form, "service", a->service);
    add_field(&form, "scope", a->scope);
    add_field(&form, "refresh_token", a->identity);
    const struct http_request r = {.method = "POST",
                                   .url = a->realm,
                                   .headers = headers,
                                   .n_headers = ARRAY_LEN(headers),
                                   .body = buf_str(&form),
                                   .body_len = form.len,
                                   .has_body = true,
                                   .repeat = HTTP_REPEAT_YES,
                                   .deadline = clock_now() + ANSWER_NS};
    enum rc rc = ask_for_token(a, &r, err);
    explicit_bzero(form.data, form.len);
    return rc;
}

static enum rc fetch_token(struct oci_auth *a, struct err *err)
{
    CLEANUP(buf_done) struct buf query = BUF_INIT;
    CLEANUP(mem_freep)
    char *header = a->basic ? mem_asprintf("Authorization: Basic %s", a->basic) : NULL;
    const char *const headers[] = {header};
    add_field(&query, "scope", a->scope);
    add_field(&query, "service", a->service);
    CLEANUP(mem_freep)
    char *url =
        mem_asprintf("%s%c%s", a->realm, strchr(a->realm, '?') ? '&' : '?', buf_str(&query));
    const struct http_request r = {.method = "GET",
                                   .url = url,
                                   .headers = headers,
                                   .n_headers = header ? 1 : 0,
                                   .deadline = clock_now() + ANSWER_NS};
    return ask_for_token(a, &r, err);
}

/* With the lock held. */
static enum rc prepare(struct oci_auth *a, bool fresh, struct err *err)
{
    enum rc rc = a->scheme == SCHEME_UNKNOWN ? learn_scheme(a, err) : RC_OK;
    if (!rc && a->helper && a->scheme != SCHEME_NONE && (fresh || !a->asked))
        rc = ask_helper(a, err); /* what it gives may end */
    if (rc || a->scheme != SCHEME_BEARER)
        return rc;
    if (!fresh && a->token && clock_now() + EARLY_NS <= a->ends)
        return RC_OK;
    return a->identity ? exchange_token(a, err) : fetch_token(a, err);
}

enum rc oci_auth_header(struct oci_auth *a, bool fresh, struct buf *out, struct err *err)
{
    (void)pthread_mutex_lock(&a->lock);
    enum rc rc = prepare(a, fresh, err);
    if (!rc && a->scheme == SCHEME_BASIC && a->basic)
        buf_addf(out, "Basic %s", a->basic);
    if (!rc && a->scheme == SCHEME_BEARER)
        buf_addf(out, "Bearer %s", a->token);
    (void)pthread_mutex_unlock(&a->lock);
    return rc;
}

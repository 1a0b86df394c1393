#include "backend/azure_identity.h"
#include "backend/azure_sign.h"
#include "backend/url.h"
#include "base/fs.h"
#include "base/mem.h"
#include "codec/base64.h"
#include "harness/httpd.h"
#include "harness/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const char *variables[32];

static char *env(const char *name)
{
    for (size_t i = 0; variables[i]; i += 2)
        if (strcmp(variables[i], name) == 0)
            return (char *)(uintptr_t)variables[i + 1];
    return NULL;
}

static void set(const char *name, const char *value)
{
    size_t i = 0;
    while (variables[i])
        i += 2;
    CHECK(i + 2 < ARRAY_LEN(variables));
    variables[i] = name;
    variables[i + 1] = value;
}

static struct backend *open_at(const struct httpd *h)
{
    struct err err = ERR_INIT;
    struct backend *b = NULL;
    char url[256];
    (void)snprintf(url, sizeof(url), "az://box-1/some/prefix?account=acc1&endpoint=%s/acc1/",
                   httpd_url(h));
    CHECK_OK(backend_open_url(url, &(struct backend_options){.env = env}, &b, &err));
    return b;
}

/* ---- signatures ---- */

TEST(a_request_is_signed_as_the_documentation_says)
{
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CLEANUP(buf_done) struct buf key = BUF_INIT;
    struct err err = ERR_INIT;
    CHECK_OK(
        base64_parse("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/"
                     "KBHBeksoGMGw==",
                     88, &key, &err));
    azure_sign(&(struct azure_signing){.account = "acc1",
                                       .key = key.data,
                                       .key_len = key.len,
                                       .method = "PUT",
                                       .body_len = 11,
                                       .if_match = "",
                                       .if_none_match = "*",
                                       .range = "",
                                       .ms_headers = "x-ms-date:d\nx-ms-version:v\n",
                                       .path = "/box/a",
                                       .query = "\ncomp:block"},
               &out);
    /* HMAC-SHA256 of
     * "PUT\n\n\n11\n\n\n\n\n\n*\n\n\nx-ms-date:d\nx-ms-version:v\n/acc1/box/a\ncomp:block",
     * computed by Python's hmac module */
    CHECK_STR(buf_str(&out), "SharedKey acc1:ISvW+UlB0+srofl1YyifPrFmOlYvloCxXdTxCmKU000=");
}

TEST(a_date_is_in_english_and_utc)
{
    char text[AZURE_DATE_LEN + 1];
    azure_date(1369353600, text);
    CHECK_STR(text, "Fri, 24 May 2013 00:00:00 GMT");
}

TEST(connection_strings_are_read)
{
    static const char text[] =
        "DefaultEndpointsProtocol=https;AccountName=a;accountkey=k==;Empty=;";
    CLEANUP(mem_freep) char *name = azure_connection_get(text, "AccountName");
    CLEANUP(mem_freep) char *key = azure_connection_get(text, "AccountKey");
    CLEANUP(mem_freep) char *empty = azure_connection_get(text, "Empty");
    CHECK_STR(name, "a");
    CHECK_STR(key, "k==");
    CHECK_STR(empty, "");
    CHECK(!azure_connection_get(text, "Account"));
    CHECK(!azure_connection_get("", "x"));
}

/* ---- requests ---- */

static void one_blob(struct httpd_request *r)
{
    char text[256];
    const char *mode = r->arg;
    if (strcmp(mode, "key") == 0) {
        CHECK(strncmp(httpd_header(r, "authorization", text, sizeof(text)),
                      "SharedKey acc1:", 15) == 0);
        CHECK(!strchr(r->target, '?'));
    } else if (strcmp(mode, "sas") == 0) {
        CHECK_STR(httpd_header(r, "authorization", text, sizeof(text)), "");
        CHECK(strstr(r->target, "?sv=1&sig=a%2Fb"));
    } else {
        CHECK_STR(httpd_header(r, "authorization", text, sizeof(text)), "Bearer token-1");
    }
    CHECK(strncmp(r->target, "/acc1/box-1/some/prefix/k", 25) == 0);
    CHECK_STR(httpd_header(r, "x-ms-blob-type", text, sizeof(text)), "BlockBlob");
    CHECK_STR(httpd_header(r, "if-none-match", text, sizeof(text)), "*");
    CHECK_STR(r->body, "hello");
    httpd_reply(r, 201, NULL, NULL, 0);
}

static void check_put(char *mode)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *h = httpd_start(one_blob, mode);
    CLEANUP(backend_freep) struct backend *b = open_at(h);
    CHECK_OK(backend_put(b, "k", "hello", 5, &err));
    CHECK_INT(httpd_requests(h), 1);
}

TEST(requests_carry_a_signature_by_the_key)
{
    char mode[] = "key";
    set("AZURE_STORAGE_KEY", "c2VjcmV0");
    check_put(mode);
}

TEST(requests_carry_a_sas)
{
    char mode[] = "sas";
    set("AZURE_STORAGE_SAS_TOKEN", "?sv=1&sig=a%2Fb");
    check_put(mode);
}

static void identity_service(struct httpd_request *r)
{
    char text[128];
    if (strcmp(r->method, "POST") == 0) {
        CHECK_STR(r->target, "/tenant/oauth2/v2.0/token");
        CHECK(strstr(r->body, "client_id=client&client_assertion=jwt.of.pod") &&
              strstr(r->body, "scope=https%3A%2F%2Fstorage.azure.com%2F.default"));
    } else {
        CHECK_STR(httpd_header(r, "metadata", text, sizeof(text)), "true");
        CHECK(strncmp(r->target, "/metadata/identity/oauth2/token?api-version=2018-02-01", 54) ==
              0);
    }
    unsigned *n = r->arg;
    int len =
        *n == 99 ? snprintf(text, sizeof(text), "{\"error_description\":\"unknown\"}")
                 : snprintf(text, sizeof(text), "{\"access_token\":\"token-%u\",\"expires_in\":%s}",
                            ++*n, strcmp(r->method, "POST") == 0 ? "3600" : "\"3600\"");
    httpd_reply(r, *n == 99 ? 400 : 200, NULL, text, (size_t)len);
}

static void check_identity(const char *source)
{
    struct err err = ERR_INIT;
    unsigned n = 0;
    char mode[] = "identity";
    CLEANUP(httpd_stopp) struct httpd *h = httpd_start(identity_service, &n);
    CLEANUP(azure_identity_freep) struct azure_identity *i = NULL;
    CLEANUP(mem_freep) char *one = NULL;
    CLEANUP(mem_freep) char *same = NULL;
    CLEANUP(mem_freep) char *fresh = NULL;
    set(source, httpd_url(h));
    check_put(mode);
    n = 0;
    CHECK_OK(azure_identity_open(env, NULL, NULL, &i, &err));
    CHECK_OK(azure_identity_token(i, false, &one, &err));
    CHECK_OK(azure_identity_token(i, false, &same, &err));
    CHECK_OK(azure_identity_token(i, true, &fresh, &err));
    CHECK_STR(one, "token-1");
    CHECK_STR(same, "token-1");
    CHECK_STR(fresh, "token-2");
    n = 99;
    char *none = NULL;
    CHECK_RC(azure_identity_token(i, true, &none, &err), RC_DENIED);
    CHECK(strstr(err.msg, "status 400: unknown"));
}

TEST(a_machine_has_an_identity)
{
    check_identity("AZURE_POD_IDENTITY_AUTHORITY_HOST");
}

TEST(a_workload_has_an_identity)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/token", test_dir());
    CHECK_OK(fs_write_whole(AT_FDCWD, path, "jwt.of.pod", 10, 0600, &err));
    set("AZURE_FEDERATED_TOKEN_FILE", path);
    set("AZURE_TENANT_ID", "tenant");
    set("AZURE_CLIENT_ID", "client");
    check_identity("AZURE_AUTHORITY_HOST");
}

/* ---- answers that are lost, and refusals ---- */

struct store {
    pthread_mutex_t lock; /* each connection has its thread */
    char token[64];
    unsigned puts;
};

/* Carries out the first request, but its answer is lost. */
static void loses_the_answer(struct httpd_request *r)
{
    struct store *s = r->arg;
    char token[64], header[128];
    (void)pthread_mutex_lock(&s->lock);
    (void)httpd_header(r, "x-ms-meta-chrekwriter", token, sizeof(token));
    if (strcmp(r->method, "HEAD") == 0) {
        (void)snprintf(header, sizeof(header), "x-ms-meta-chrekwriter: %s\r\n", s->token);
        httpd_reply(r, 200, header, NULL, 0);
    } else if (s->puts++ == 0) {
        (void)snprintf(s->token, sizeof(s->token), "%s", token);
        httpd_reset(r);
    } else {
        static const char text[] = "<Error><Code>BlobAlreadyExists</Code></Error>";
        httpd_reply(r, 409, NULL, text, strlen(text));
    }
    (void)pthread_mutex_unlock(&s->lock);
}

TEST(a_writer_whose_answer_was_lost_knows_its_object)
{
    struct err err = ERR_INIT;
    struct store s = {.lock = PTHREAD_MUTEX_INITIALIZER};
    set("AZURE_STORAGE_KEY", "c2VjcmV0");
    CLEANUP(httpd_stopp) struct httpd *h = httpd_start(loses_the_answer, &s);
    CLEANUP(backend_freep) struct backend *b = open_at(h);
    CHECK_OK(backend_put(b, "k", "x", 1, &err));
    CHECK_RC(backend_put(b, "k", "x", 1, &err), RC_EXISTS);
}

struct refusal {
    const char *code, *said;
    unsigned status;
    enum rc rc;
};

static void refuses(struct httpd_request *r)
{
    const struct refusal *x = r->arg;
    char text[256], header[128];
    int n = snprintf(text, sizeof(text), "<Error><Code>%s</Code><Message>said</Message></Error>",
                     x->code);
    (void)snprintf(header, sizeof(header), "x-ms-error-code: %s\r\n", x->code);
    httpd_reply(r, x->status, header, text, (size_t)n);
}

TEST(what_the_server_refuses_is_explained)
{
    static struct refusal cases[] = {
        {"ContainerNotFound", "there is no container 'box-1'", 404, RC_INVALID},
        {"BlobNotFound", "no such object", 404, RC_NOT_FOUND},
        {"AuthenticationFailed", "key of account 'acc1', or this machine's clock", 403, RC_DENIED},
        {"AuthorizationPermissionMismatch", "Storage Blob Data Contributor", 403, RC_DENIED},
        {"BlobAlreadyExists", "there already", 409, RC_EXISTS},
        {"ConditionNotMet", "there already", 412, RC_EXISTS},
        {"AccountQuotaExceeded", "quota", 400, RC_NO_SPACE},
        {"RequestBodyTooLarge", "RequestBodyTooLarge: said", 413, RC_TOO_BIG},
        {"Other", "status 400 Other: said", 400, RC_IO},
    };
    set("AZURE_STORAGE_KEY", "c2VjcmV0");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        struct backend_object *o = NULL;
        CLEANUP(httpd_stopp) struct httpd *h = httpd_start(refuses, &cases[i]);
        CLEANUP(backend_freep) struct backend *b = open_at(h);
        CHECK_RC(backend_put(b, "k", "x", 1, &err), cases[i].rc);
        if (!strstr(err.msg, cases[i].said))
            test_fail(__FILE__, __LINE__, "%s: %s", cases[i].code, err.msg);
        CHECK_RC(backend_remove(b, "k", &err), cases[i].rc);
        CHECK_RC(backend_open(b, "k", &o, &err), cases[i].rc);
        CHECK(!strstr(err.msg, "c2VjcmV0"));
    }
}

/* ---- settings ---- */

TEST(settings_that_are_none_are_refused)
{
    static const char *const bad[] = {"az://box-1",
                                      "az://b?account=acc1",
                                      "az://Box-1?account=acc1",
                                      "az://box-1?account=a/b",
                                      "az://box-1?account=acc1&endpoint=ftp://h",
                                      "az://box-1?account=acc1&endpoint=http://",
                                      "az://box-1?account=acc1&endpoint=http://h?x=1",
                                      "az://box-1/.p?account=acc1",
                                      "az://box-1?account=acc1&colour=red",
                                      "az://box-1?account=acc1&client_id=%0a"};
    set("AZURE_STORAGE_KEY", "c2VjcmV0");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        struct backend *b = NULL;
        if (backend_open_url(bad[i], &(struct backend_options){.env = env}, &b, &err) != RC_INVALID)
            test_fail(__FILE__, __LINE__, "'%s' was accepted", bad[i]);
        CHECK(!b);
    }
}

TEST(a_key_that_is_no_base64_is_refused)
{
    struct err err = ERR_INIT;
    struct backend *b = NULL;
    set("AZURE_STORAGE_ACCOUNT", "acc1");
    set("AZURE_STORAGE_KEY", "no base64");
    CHECK_RC(backend_open_url("az://box-1", &(struct backend_options){.env = env}, &b, &err),
             RC_INVALID);
    CHECK(strstr(err.msg, "key of account 'acc1'") && !strstr(err.msg, "no base64 "));
}

#include "backend/azure_identity.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/num.h"
#include "codec/json.h"
#include "net/http.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define EARLY (300 * CLOCK_S)
#define FILE_MAX ((size_t)1 << 20)
#define HOURS_MAX ((uint64_t)48 * 3600) /* no token lives longer, whatever a server says */

struct azure_identity {
    char *(*env)(const char *name);
    char *client_id;
    struct http_client *near, *far; /* services of this machine; Azure's */
    pthread_mutex_t lock;
    char *token;
    uint64_t ends; /* clock_now() */
};

static const char *get(const struct azure_identity *i, const char *name)
{
    const char *value = i->env ? i->env(name) : NULL;
    return value && *value ? value : NULL;
}

enum rc azure_identity_open(char *(*env)(const char *name), const char *client_id,
                            const char *ca_file, struct azure_identity **out, struct err *err)
{
    const struct http_options near = {.direct = true,
                                      .connect_timeout_ns = 2 * CLOCK_S,
                                      .stall_timeout_ns = 10 * CLOCK_S,
                                      .tries = 3};
    const struct http_options far = {.ca_file = ca_file};
    struct azure_identity *i = mem_zalloc(sizeof(*i));
    i->env = env;
    (void)pthread_mutex_init(&i->lock, NULL);
    i->client_id = mem_strdup(client_id ? client_id : get(i, "AZURE_CLIENT_ID"));
    enum rc rc = http_open(&near, &i->near, err);
    if (!rc)
        rc = http_open(&far, &i->far, err);
    if (rc)
        azure_identity_freep(&i);
    else
        *out = i;
    return rc;
}

void azure_identity_after_fork(struct azure_identity *i)
{
    (void)pthread_mutex_init(&i->lock, NULL);
    http_after_fork(i->near);
    http_after_fork(i->far);
}

void azure_identity_freep(struct azure_identity **identity)
{
    struct azure_identity *i = STEAL(*identity);
    if (!i)
        return;
    http_closep(&i->near);
    http_closep(&i->far);
    (void)pthread_mutex_destroy(&i->lock);
    free(i->client_id);
    free(i->token);
    free(i);
}

/* The lifetime is a number, or one in a string. */
static uint64_t lifetime(yyjson_val *root)
{
    uint64_t seconds = json_u64(root, "expires_in", 0);
    if (seconds == 0 &&
        num_parse_u64(json_str(root, "expires_in", "0"), 0, HOURS_MAX, &seconds, NULL))
        seconds = 0;
    return (seconds < HOURS_MAX ? seconds : HOURS_MAX) * CLOCK_S;
}

static enum rc take(struct azure_identity *i, const struct http_response *a, const char *who,
                    struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    enum rc rc = json_parse(who, buf_str(&a->body), a->body.len, &doc, err);
    yyjson_val *root = rc ? NULL : yyjson_doc_get_root(doc);
    if (a->status != 200)
        return err_set(err, RC_DENIED, "%s gives no token: status %u: %.200s", who, a->status,
                       root ? json_str(root, "error_description", "") : "");
    const char *token = root ? json_str(root, "access_token", NULL) : NULL;
    if (!rc && !token)
        rc = err_set(err, RC_INVALID, "%s answers without a token", who);
    if (rc)
        return rc;
    free(i->token);
    i->token = mem_strdup(token);
    i->ends = clock_now() + lifetime(root);
    return RC_OK;
}

static enum rc of_workload(struct azure_identity *i, const char *file, const char *tenant,
                           struct err *err)
{
    const char *given = get(i, "AZURE_AUTHORITY_HOST");
    const char *authority = given ? given : "https://login.microsoftonline.com/";
    CLEANUP(buf_done) struct buf token = BUF_INIT;
    CLEANUP(buf_done) struct buf form = BUF_INIT;
    CLEANUP(buf_done) struct buf url = BUF_INIT;
    CLEANUP(http_response_done) struct http_response a = {0};
    enum rc rc = fs_read_file(AT_FDCWD, file, FILE_MAX, &token, err);
    if (rc)
        return err_ctx(err, rc, "federated token '%s'", file);
    buf_addf(&url, "%.*s/", (int)(strlen(authority) - (authority[strlen(authority) - 1] == '/')),
             authority);
    http_escape(tenant, "", &url);
    buf_adds(&url, "/oauth2/v2.0/token");
    buf_adds(&form, "grant_type=client_credentials&scope=https%3A%2F%2Fstorage.azure.com%2F.default"
                    "&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3A"
                    "jwt-bearer&client_id=");
    http_escape(i->client_id, "", &form);
    buf_adds(&form, "&client_assertion=");
    http_escape(buf_str(&token), "", &form);
    const char *const headers[] = {"Content-Type: application/x-www-form-urlencoded"};
    rc = http_do(i->far,
                 &(struct http_request){.method = "POST",
                                        .url = buf_str(&url),
                                        .headers = headers,
                                        .n_headers = 1,
                                        .body = buf_str(&form),
                                        .body_len = form.len,
                                        .repeat = HTTP_REPEAT_YES,
                                        .deadline = clock_now() + 60 * CLOCK_S},
                 &a, err);
    return rc ? rc : take(i, &a, "the authority of the workload identity", err);
}

static enum rc of_machine(struct azure_identity *i, struct err *err)
{
    const char *given = get(i, "AZURE_POD_IDENTITY_AUTHORITY_HOST");
    CLEANUP(buf_done) struct buf url = BUF_INIT;
    CLEANUP(http_response_done) struct http_response a = {0};
    buf_addf(&url, "%s/metadata/identity/oauth2/token?api-version=2018-02-01&resource=%s",
             given ? given : "http://169.254.169.254", "https%3A%2F%2Fstorage.azure.com%2F");
    if (i->client_id) {
        buf_adds(&url, "&client_id=");
        http_escape(i->client_id, "", &url);
    }
    const char *const headers[] = {"Metadata: true"};
    enum rc rc = http_do(i->near,
                         &(struct http_request){.method = "GET",
                                                .url = buf_str(&url),
                                                .headers = headers,
                                                .n_headers = 1,
                                                .deadline = clock_now() + 20 * CLOCK_S},
                         &a, err);
    if (rc)
        return err_set(err, RC_DENIED,
                       "no credentials: set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or "
                       "AZURE_STORAGE_CONNECTION_STRING, or give this machine or pod an identity");
    return take(i, &a, "the managed identity service", err);
}

enum rc azure_identity_token(struct azure_identity *i, bool fresh, char **out, struct err *err)
{
    const char *file = get(i, "AZURE_FEDERATED_TOKEN_FILE"), *tenant = get(i, "AZURE_TENANT_ID");
    enum rc rc = RC_OK;
    (void)pthread_mutex_lock(&i->lock);
    uint64_t now = clock_now();
    if (fresh || !i->token || i->ends < now + EARLY) {
        rc =
            file && tenant && i->client_id ? of_workload(i, file, tenant, err) : of_machine(i, err);
        if (rc && !fresh && i->token && i->ends > now)
            rc = RC_OK; /* as long as the old one is good, a service may be away */
    }
    if (!rc)
        *out = mem_strdup(i->token);
    (void)pthread_mutex_unlock(&i->lock);
    return rc;
}

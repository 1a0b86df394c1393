#include "kube/client.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "codec/json.h"
#include "kube/client_priv.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_MAX ((size_t)64 << 10)
#define OBJECT_MAX ((size_t)16 << 20) /* of an answer; etcd takes objects of 1.5 MB */
#define REQUEST_NS (60 * CLOCK_S)

enum rc kube_open(const struct kube_config *config, struct kube **out, struct err *err)
{
    CLEANUP(kube_closep) struct kube *k = mem_zalloc(sizeof(*k));
    struct http_options o = {.ca_pem = config->ca_pem,
                             .cert_pem = config->cert_pem,
                             .key_pem = config->key_pem,
                             .direct = config->token_file != NULL}; /* in a pod */
    enum rc rc = http_open(&o, &k->http, err);
    if (rc)
        return rc;
    k->server = mem_strdup(config->server);
    k->token = mem_strdup(config->token);
    k->token_file = mem_strdup(config->token_file);
    if (config->exec_argv)
        k->login = kube_login_new(config->exec_argv, config->exec_env, config->exec_version);
    *out = STEAL(k);
    return RC_OK;
}

void kube_closep(struct kube **client)
{
    struct kube *k = STEAL(*client);
    if (!k)
        return;
    http_closep(&k->http);
    free(k->server);
    if (k->token)
        explicit_bzero(k->token, strlen(k->token));
    free(k->token);
    free(k->token_file);
    kube_login_freep(&k->login);
    free(k);
}

/* For http_prepare: who we are. */
static enum rc add_token(void *arg, struct http_try *t, struct err *err)
{
    const struct kube *k = arg;
    CLEANUP(buf_done) struct buf text = {.max = TOKEN_MAX};
    if (k->token) {
        http_try_header(t, "Authorization: Bearer %s", k->token);
        return RC_OK;
    }
    if (!k->token_file && !k->login)
        return RC_OK;
    enum rc rc = k->login ? kube_login_token(k->login, &text, err)
                          : fs_read_file(AT_FDCWD, k->token_file, TOKEN_MAX, &text, err);
    if (rc)
        return k->login ? rc : err_ctx(err, rc, "token '%s'", k->token_file);
    size_t len = strcspn(buf_str(&text), " \t\r\n");
    http_try_header(t, "Authorization: Bearer %.*s", (int)len, buf_str(&text));
    if (text.data)
        explicit_bzero(text.data, text.len);
    return RC_OK;
}

struct second_chance {
    struct kube *k;
    bool used;
};

/* For http_again: a token may have been taken back before its time. */
static bool log_in_again(void *arg, unsigned status, const struct buf *body)
{
    struct second_chance *s = arg;
    (void)body;
    if (status != 401 || !s->k->login || s->used)
        return false;
    s->used = true;
    kube_login_forget(s->k->login);
    return true;
}

enum rc kube_status_rc(unsigned status, const char *reason)
{
    switch (status) {
    case 400:
    case 405:
    case 406:
    case 415:
    case 422:
        return RC_INVALID;
    case 410: /* a version that the server does not have any more */
        return RC_CONFLICT;
    case 409:
        return strcmp(reason, "AlreadyExists") == 0 ? RC_EXISTS : RC_CONFLICT;
    default:
        return http_status_rc(status) ? http_status_rc(status) : RC_IO;
    }
}

enum rc kube_refused(yyjson_val *status, unsigned code, struct err *err)
{
    const char *reason = json_str(status, "reason", "");
    return err_set(err, kube_status_rc(code, reason), "%.400s (%u%s%.60s)",
                   json_str(status, "message", "the API server refuses"), code, *reason ? " " : "",
                   reason);
}

enum rc kube_send(struct kube *k, struct http_request *r, const char *path, yyjson_doc **out,
                  struct err *err)
{
    CLEANUP(http_response_done) struct http_response a = {0};
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(mem_freep) char *url = mem_asprintf("%s%s", k->server, path);
    r->url = url;
    r->prepare = add_token;
    r->prepare_arg = k;
    struct second_chance chance = {.k = k};
    r->again = log_in_again;
    r->again_arg = &chance;
    if (r->body_max == 0)
        r->body_max = OBJECT_MAX;
    enum rc rc = http_do(k->http, r, &a, err);
    if (rc)
        return rc;
    bool good = a.status >= 200 && a.status <= 299;
    if (!r->sink || !good)
        rc = json_parse("the API server's answer", buf_str(&a.body), a.body.len, &doc, err);
    if (!good) {
        rc = kube_refused(rc ? NULL : yyjson_doc_get_root(doc), a.status, err);
        return err_ctx(err, rc, "%s %.200s", r->method, path);
    }
    if (rc)
        return err_ctx(err, rc, "%s %.200s", r->method, path);
    if (out)
        *out = STEAL(doc);
    return RC_OK;
}

static const struct {
    const char *method, *type;
    enum http_repeat repeat;
} verbs[] = {
    [KUBE_GET] = {"GET", NULL, HTTP_REPEAT_YES},
    [KUBE_CREATE] = {"POST", "application/json", HTTP_REPEAT_NO},
    [KUBE_REPLACE] = {"PUT", "application/json", HTTP_REPEAT_YES},
    [KUBE_DELETE] = {"DELETE", NULL, HTTP_REPEAT_YES},
    [KUBE_MERGE_PATCH] = {"PATCH", "application/merge-patch+json", HTTP_REPEAT_YES},
    [KUBE_JSON_PATCH] = {"PATCH", "application/json-patch+json", HTTP_REPEAT_NO},
    [KUBE_APPLY] = {"PATCH", "application/apply-patch+yaml", HTTP_REPEAT_YES},
};

enum rc kube_do(struct kube *k, enum kube_verb verb, const char *path, yyjson_mut_doc *body,
                yyjson_doc **out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(mem_freep) char *type = mem_asprintf("Content-Type: %s", verbs[verb].type);
    const char *headers[2] = {"Accept: application/json", type};
    if (body)
        json_write(body, &text);
    struct http_request r = {.method = verbs[verb].method,
                             .headers = headers,
                             .n_headers = body ? 2 : 1,
                             .body = text.data,
                             .body_len = text.len,
                             .repeat = verbs[verb].repeat,
                             .deadline = clock_now() + REQUEST_NS};
    return kube_send(k, &r, path, out, err);
}

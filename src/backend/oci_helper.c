#include "backend/oci_helper.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/errand.h"
#include "base/mem.h"
#include "codec/json.h"
#include "codec/secret.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRAM "docker-credential-%s"
#define ANSWER_MAX ((size_t)64 << 10)
#define PATIENCE_NS (30 * CLOCK_S)
#define IDENTITY_USER "<token>"
#define NOT_FOUND "credentials not found in native keychain" /* that is what they all say */

static void free_secret(char **text)
{
    if (*text)
        secret_wipe(*text, strlen(*text));
    free(*text);
    *text = NULL;
}

void oci_login_done(struct oci_login *l)
{
    free_secret(&l->secret);
    free(l->user);
    *l = (struct oci_login){.user = NULL};
}

static bool is_name(const char *text)
{
    size_t n = strlen(text);
    return n > 0 && n <= 100 &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == n;
}

/* A failure is told on standard output. */
static enum rc explain(const char *program, int status, char *said, struct err *err)
{
    said[strcspn(said, "\r\n")] = '\0';
    if (strstr(said, NOT_FOUND))
        return err_set(err, RC_NOT_FOUND, "%s has no credentials", program);
    if (status == ERRAND_NOT_STARTED)
        return err_set(err, RC_UNAVAILABLE,
                       "%s, which Docker's configuration names for it, cannot be started: install "
                       "it where PATH finds it, or set CHREK_OCI_USERNAME and CHREK_OCI_PASSWORD",
                       program);
    return err_set(err, RC_DENIED, "%s fails with status %d: %.160s", program, status,
                   *said ? said : "it says nothing");
}

static enum rc take(const char *program, const char *text, size_t len, struct oci_login *out,
                    struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    enum rc rc = json_parse(program, text, len, &doc, NULL); /* an error would tell of secrets */
    yyjson_val *root = rc ? NULL : yyjson_doc_get_root(doc);
    const char *user = json_str(root, "Username", NULL), *secret = json_str(root, "Secret", NULL);
    if (!user || !secret || !*secret)
        return err_set(err, RC_CORRUPT, "%s answers without a Username and a Secret", program);
    *out = (struct oci_login){.user = mem_strdup(user),
                              .secret = mem_strdup(secret),
                              .is_identity = strcmp(user, IDENTITY_USER) == 0};
    return RC_OK;
}

enum rc oci_helper_ask(const char *name, const char *registry, struct oci_login *out,
                       struct err *err)
{
    if (!is_name(name))
        return err_set(err, RC_INVALID, "'%.60s' is no name of a credential helper", name);
    CLEANUP(mem_freep) char *program = mem_asprintf(PROGRAM, name);
    CLEANUP(mem_freep) char *answer = mem_zalloc(ANSWER_MAX + 1);
    char get[] = "get", *argv[] = {program, get, NULL};
    size_t len = 0;
    int status = 0;
    enum rc rc = errand_run(argv, environ, registry, strlen(registry), clock_now() + PATIENCE_NS,
                            answer, ANSWER_MAX, &len, &status, err);
    if (rc)
        rc = err_ctx(err, rc, "%s", program);
    else if (status)
        rc = explain(program, status, answer, err);
    else
        rc = take(program, answer, len, out, err);
    secret_wipe(answer, ANSWER_MAX);
    return rc;
}

#include "backend/oci_auth.h"
#include "base/fs.h"
#include "base/mem.h"
#include "harness/httpd.h"
#include "harness/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A registry, and its token service in the same place. */
struct registry {
    struct httpd *server;
    struct http_client *http;
    struct oci_auth *auth;
    const char *wants;      /* "Basic" or "Bearer" */
    char asked[512];        /* method and what came with the last request for a token */
    char authorization[64]; /* of it */
};

static void answer(struct httpd_request *r)
{
    struct registry *g = r->arg;
    char wants[512];
    if (strcmp(r->target, "/v2/") == 0) {
        (void)snprintf(wants, sizeof(wants),
                       "WWW-Authenticate: %s realm=\"%s/token\",service=\"here\"\r\n", g->wants,
                       httpd_url(r->server));
        httpd_reply(r, 401, wants, "", 0);
        return;
    }
    (void)snprintf(g->asked, sizeof(g->asked), "%.8s %.200s %.250s", r->method, r->target,
                   r->body ? r->body : "");
    (void)httpd_header(r, "Authorization", g->authorization, sizeof(g->authorization));
    static const char token[] = "{\"access_token\":\"T\",\"expires_in\":300}";
    httpd_reply(r, 200, NULL, token, sizeof(token) - 1);
}

static char *config_dir(const char *name)
{
    if (strcmp(name, "DOCKER_CONFIG") == 0)
        return (char *)(uintptr_t)test_dir();
    return NULL;
}

static void write_in(const char *name, const char *text, mode_t mode)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/%s", test_dir(), name);
    CHECK_OK(fs_write_whole(AT_FDCWD, path, text, strlen(text), mode, &err));
    CHECK(chmod(path, mode) == 0);
}

/* A helper of this name, a shell script; PATH finds it. */
static void write_helper(const char *name, const char *script)
{
    CLEANUP(mem_freep) char *file = mem_asprintf("docker-credential-%s", name);
    CLEANUP(mem_freep) char *text = mem_asprintf("#!/bin/sh\nread -r registry\n%s\n", script);
    CLEANUP(mem_freep) char *path = mem_asprintf("%s:/usr/bin:/bin", test_dir());
    write_in(file, text, 0700);
    CHECK(setenv("PATH", path, 1) == 0);
}

static void open_with(struct registry *g, const char *wants, const char *config)
{
    struct err err = ERR_INIT;
    const struct backend_options o = {.env = config_dir};
    memset(g, 0, sizeof(*g));
    g->wants = wants;
    g->server = httpd_start(answer, g);
    write_in("config.json", config, 0600);
    CHECK_OK(http_open(NULL, &g->http, &err));
    CHECK_OK(oci_auth_open(&o, "reg.example:5000", httpd_url(g->server), "repository:a/b:pull",
                           g->http, &g->auth, &err));
}

static void close_it(struct registry *g)
{
    oci_auth_freep(&g->auth);
    http_closep(&g->http);
    httpd_stopp(&g->server);
}

static void check_header(struct registry *g, bool fresh, const char *want)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf header = BUF_INIT;
    CHECK_OK(oci_auth_header(g->auth, fresh, &header, &err));
    CHECK_STR(buf_str(&header), want);
}

#define USE_HELPER "{\"credHelpers\":{\"reg.example:5000\":\"one\"}}"
#define ANSWER "echo '{\"ServerURL\":\"x\",\"Username\":\"u\",\"Secret\":\"s\"}'"

TEST(a_helper_is_asked_for_the_registry_and_again_when_it_is_refused)
{
    struct registry g;
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf said = BUF_INIT;
    CLEANUP(mem_freep)
    char *script = mem_asprintf("echo \"$1 $registry\" >>%s/calls; " ANSWER, test_dir());
    CLEANUP(mem_freep) char *calls = mem_asprintf("%s/calls", test_dir());
    write_helper("one", script);
    open_with(&g, "Basic", USE_HELPER);
    CHECK_RC(fs_read_file(AT_FDCWD, calls, 1000, &said, &err), RC_NOT_FOUND);
    check_header(&g, false, "Basic dTpz");
    check_header(&g, false, "Basic dTpz");
    check_header(&g, true, "Basic dTpz");
    CHECK_STR(oci_auth_source(g.auth), "docker-credential-one");
    CHECK_OK(fs_read_file(AT_FDCWD, calls, 1000, &said, &err));
    CHECK_STR(buf_str(&said), "get reg.example:5000\nget reg.example:5000\n");
    close_it(&g);
}

TEST(a_token_is_got_with_what_the_helper_gives)
{
    struct registry g;
    write_helper("one", ANSWER);
    open_with(&g, "Bearer", USE_HELPER);
    check_header(&g, false, "Bearer T");
    CHECK_STR(g.asked, "GET /token?scope=repository%3Aa%2Fb%3Apull&service=here ");
    CHECK_STR(g.authorization, "Basic dTpz");
    close_it(&g);
}

static const char form[] = "POST /token grant_type=refresh_token&client_id=chrek&service=here&"
                           "scope=repository%3Aa%2Fb%3Apull&refresh_token=";

static void check_exchanged(const char *config, const char *token)
{
    struct registry g;
    CLEANUP(mem_freep) char *want = mem_asprintf("%s%s", form, token);
    open_with(&g, "Bearer", config);
    check_header(&g, false, "Bearer T");
    CHECK_STR(g.asked, want);
    CHECK_STR(g.authorization, "");
    close_it(&g);
}

TEST(an_identity_token_is_exchanged_for_another)
{
    write_helper("one", "echo '{\"Username\":\"<token>\",\"Secret\":\"id/1\"}'");
    check_exchanged(USE_HELPER, "id%2F1");
    check_exchanged("{\"auths\":{\"reg.example:5000\":{\"identitytoken\":\"id2\"}}}", "id2");
}

TEST(a_keeper_of_all_is_asked_for_what_does_not_stand_in_the_file)
{
    struct registry g;
    write_helper("all", ANSWER);
    open_with(&g, "Basic", "{\"credsStore\":\"all\",\"auths\":{\"reg.example:5000\":{}}}");
    check_header(&g, false, "Basic dTpz");
    close_it(&g);
    open_with(&g, "Basic",
              "{\"credsStore\":\"all\",\"auths\":{\"reg.example:5000\":{\"auth\":\"YTpi\"}}}");
    check_header(&g, false, "Basic YTpi");
    close_it(&g);
    open_with(&g, "Basic", "{\"credHelpers\":{\"other.example\":\"all\"}}");
    check_header(&g, false, "");
    close_it(&g);
}

TEST(a_helper_that_has_none_leaves_the_registry_to_decide)
{
    struct registry g;
    write_helper("one", "echo 'credentials not found in native keychain'; exit 1");
    open_with(&g, "Bearer", USE_HELPER);
    check_header(&g, false, "Bearer T");
    CHECK_STR(g.authorization, "");
    close_it(&g);
}

static void check_fails(const char *config, enum rc want, const char *said)
{
    struct registry g;
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf header = BUF_INIT;
    open_with(&g, "Basic", config);
    CHECK_RC(oci_auth_header(g.auth, false, &header, &err), want);
    if (!strstr(err.msg, said) || !strstr(err.msg, "reg.example:5000") || strstr(err.msg, "secret"))
        test_fail(__FILE__, __LINE__, "%s", err.msg);
    CHECK_STR(buf_str(&header), "");
    close_it(&g);
}

TEST(what_is_wrong_with_a_helper_is_told)
{
    write_helper("one", "echo 'the keychain is locked'; echo more; exit 3");
    check_fails(USE_HELPER, RC_DENIED, "fails with status 3: the keychain is locked");
    write_helper("one", "echo 'no secret in here'");
    check_fails(USE_HELPER, RC_CORRUPT, "answers without a Username and a Secret");
    write_helper("one", "echo '{\"Username\":\"secret\"}'");
    check_fails(USE_HELPER, RC_CORRUPT, "answers without a Username and a Secret");
    write_helper("one", "kill -9 $$");
    check_fails(USE_HELPER, RC_DENIED, "fails with status 137");
    write_helper("one", "exec yes secret");
    check_fails(USE_HELPER, RC_CORRUPT, "it answered more than");
    check_fails(
        "{\"credsStore\":\"absent\"}", RC_UNAVAILABLE,
        "docker-credential-absent, which Docker's configuration names for it, cannot be started");
    check_fails("{\"credsStore\":\"absent\"}", RC_UNAVAILABLE, "set CHREK_OCI_USERNAME");
    check_fails("{\"credsStore\":\"../evil\"}", RC_INVALID, "no name of a credential helper");
}

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "codec/json.h"
#include "harness/httpd.h"
#include "harness/test.h"
#include "kube/client.h"
#include "kube/login.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#define VERSION "client.authentication.k8s.io/v1"

/* A program that says `text`, with $n for how often it has run, and N and the request's version as
 * words around the token. */
static char *program(const char *text)
{
    struct err err = ERR_INIT;
    char *path = mem_asprintf("%s/login", test_dir());
    CLEANUP(mem_freep)
    char *script = mem_asprintf("#!/bin/sh\necho x >> %s/runs\nn=$(wc -l < %s/runs)\n%s\n",
                                test_dir(), test_dir(), text);
    CHECK_OK(fs_write_whole(AT_FDCWD, path, script, strlen(script), 0700, &err));
    CHECK(chmod(path, 0700) == 0);
    return path;
}

static const char good[] =
    "case $KUBERNETES_EXEC_INFO in *'\"apiVersion\":\"" VERSION "\"'*) ok=yes;; esac\n"
    "echo \"{\\\"kind\\\":\\\"ExecCredential\\\",\\\"apiVersion\\\":\\\"" VERSION
    "\\\",\\\"status\\\":"
    "{\\\"token\\\":\\\"$ok-$N-$1-$n\\\"$expires}}\"";

static void expect(struct kube_login *l, const char *want)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf token = BUF_INIT;
    CHECK_OK(kube_login_token(l, &token, &err));
    CHECK_STR(buf_str(&token), want);
}

TEST(a_token_is_kept_until_it_is_not_taken_any_more)
{
    CLEANUP(mem_freep) char *path = program(good);
    char *const argv[] = {path, (char *)(uintptr_t) "arg", NULL};
    char *const env[] = {(char *)(uintptr_t) "N=env", NULL};
    CLEANUP(kube_login_freep) struct kube_login *l = kube_login_new(argv, env, VERSION);
    expect(l, "yes-env-arg-1");
    expect(l, "yes-env-arg-1");
    kube_login_forget(l);
    expect(l, "yes-env-arg-2");
}

TEST(a_token_is_not_used_beyond_its_time)
{
    CLEANUP(mem_freep) char *path = program(good);
    char *const argv[] = {path, NULL};
    char *const past[] = {(char *)(uintptr_t) "expires=,\"expirationTimestamp\":"
                                              "\"2020-01-01T00:00:00Z\"",
                          NULL};
    char *const future[] = {(char *)(uintptr_t) "expires=,\"expirationTimestamp\":"
                                                "\"2120-01-01T00:00:00Z\"",
                            NULL};
    CLEANUP(kube_login_freep) struct kube_login *a = kube_login_new(argv, past, VERSION);
    CLEANUP(kube_login_freep) struct kube_login *b = kube_login_new(argv, future, VERSION);
    expect(a, "yes---1");
    expect(a, "yes---2");
    expect(b, "yes---3");
    expect(b, "yes---3");
}

TEST(what_goes_wrong_with_the_program_is_said)
{
    static const struct {
        const char *text;
        enum rc want;
    } cases[] = {
        {"exit 3", RC_DENIED},
        {"echo no", RC_CORRUPT},
        {"echo '{\"kind\":\"ExecCredential\",\"apiVersion\":\"x/v1\",\"status\":{\"token\":"
         "\"t\"}}'",
         RC_CORRUPT},
        {"echo '{\"kind\":\"ExecCredential\",\"apiVersion\":\"" VERSION "\"}'", RC_CORRUPT}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        CLEANUP(buf_done) struct buf token = BUF_INIT;
        CLEANUP(mem_freep) char *path = program(cases[i].text);
        char *const argv[] = {path, NULL};
        CLEANUP(kube_login_freep) struct kube_login *l = kube_login_new(argv, NULL, VERSION);
        CHECK_RC(kube_login_token(l, &token, &err), cases[i].want);
        CHECK(token.len == 0 && strstr(err.msg, "log in by"));
    }
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf token = BUF_INIT;
    char *const none[] = {(char *)(uintptr_t) "/nowhere/login", NULL};
    CLEANUP(kube_login_freep) struct kube_login *l = kube_login_new(none, NULL, VERSION);
    CHECK_RC(kube_login_token(l, &token, &err), RC_DENIED);
    CHECK(strstr(err.msg, "cannot be started"));
}

static void only_the_second(struct httpd_request *r)
{
    char token[64];
    bool second =
        strcmp(httpd_header(r, "authorization", token, sizeof(token)), "Bearer yes---2") == 0;
    httpd_reply(r, second ? 200 : 401, NULL, "{}", 2);
}

TEST(a_token_that_was_taken_back_is_replaced_once)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = program(good);
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(only_the_second, NULL);
    char *argv[] = {path, NULL};
    char version[] = VERSION, server[64];
    (void)snprintf(server, sizeof(server), "%s", httpd_url(s));
    const struct kube_config c = {.server = server, .exec_argv = argv, .exec_version = version};
    CLEANUP(kube_closep) struct kube *k = NULL;
    CHECK_OK(kube_open(&c, &k, &err));
    CHECK_OK(kube_do(k, KUBE_GET, "/a", NULL, NULL, &err));
    CHECK_INT(httpd_requests(s), 2);
    CHECK_OK(kube_do(k, KUBE_GET, "/a", NULL, NULL, &err));
    CHECK_INT(httpd_requests(s), 3);
}

#include "backend/s3_credentials.h"
#include "base/fs.h"
#include "base/mem.h"
#include "harness/httpd.h"
#include "harness/test.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* The environment of a test: name, value, ..., NULL. */
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

static const char *write_file(const char *name, const char *text)
{
    struct err err = ERR_INIT;
    char *path = mem_asprintf("%s/%s", test_dir(), name);
    CHECK_OK(fs_write_whole(AT_FDCWD, path, text, strlen(text), 0600, &err));
    return path; /* lives as long as the test */
}

static struct s3_chain *chain(const char *profile)
{
    struct err err = ERR_INIT;
    struct s3_chain *c = NULL;
    set("AWS_EC2_METADATA_DISABLED", "true");
    CHECK_OK(s3_chain_open(
        &(struct s3_chain_options){.env = env, .profile = profile, .region = "eu-test-1"}, &c,
        &err));
    return c;
}

static void check_key(struct s3_chain *c, bool fresh, const char *access, const char *token,
                      const char *source)
{
    struct err err = ERR_INIT;
    CLEANUP(s3_key_done) struct s3_key k = {.access = NULL};
    CHECK_OK(s3_chain_get(c, fresh, &k, &err));
    CHECK_STR(k.access, access);
    CHECK_STR(k.token ? k.token : "none", token);
    CHECK(strstr(k.source, source));
}

static void check_denied(struct s3_chain *c, const char *said)
{
    struct err err = ERR_INIT;
    struct s3_key k = {.access = NULL};
    CHECK_RC(s3_chain_get(c, false, &k, &err), RC_DENIED);
    if (!strstr(err.msg, said))
        test_fail(__FILE__, __LINE__, "%s", err.msg);
    CHECK(!k.access);
}

TEST(nothing_anywhere_is_said_with_the_remedy)
{
    CLEANUP(s3_chain_freep) struct s3_chain *c = chain(NULL);
    check_denied(c, "set AWS_ACCESS_KEY_ID");
}

TEST(the_environment_goes_first)
{
    set("AWS_ACCESS_KEY_ID", "A");
    CLEANUP(s3_chain_freep) struct s3_chain *half = chain(NULL);
    check_denied(half, "without AWS_SECRET_ACCESS_KEY");
    set("AWS_SECRET_ACCESS_KEY", "S");
    set("AWS_SHARED_CREDENTIALS_FILE",
        write_file("credentials", "[default]\naws_access_key_id=F\naws_secret_access_key=S\n"));
    CLEANUP(s3_chain_freep) struct s3_chain *c = chain(NULL);
    check_key(c, false, "A", "none", "environment");
    set("AWS_SESSION_TOKEN", "T");
    check_key(c, true, "A", "T", "environment");
}

static const char credentials[] = "# comment\n"
                                  "[default]\n"
                                  "aws_access_key_id = D\r\n"
                                  "aws_secret_access_key = S=1\n"
                                  "[other]\n"
                                  "; aws_access_key_id = no\n"
                                  "aws_access_key_id=O\naws_secret_access_key=S\n"
                                  "aws_session_token=T\n"
                                  "[half]\naws_access_key_id=H\n";

TEST(shared_files_have_profiles)
{
    struct err err = ERR_INIT;
    set("AWS_SHARED_CREDENTIALS_FILE", write_file("credentials", credentials));
    set("AWS_CONFIG_FILE", write_file("config", "[default]\nregion=eu-1\n[profile other]\n"
                                                "region = eu-2\n[profile role]\nrole_arn=r\n"));
    CLEANUP(s3_chain_freep) struct s3_chain *c = chain(NULL);
    CLEANUP(s3_chain_freep) struct s3_chain *other = chain("other");
    CLEANUP(s3_chain_freep) struct s3_chain *half = chain("half");
    CLEANUP(s3_chain_freep) struct s3_chain *role = chain("role");
    check_key(c, false, "D", "none", "shared credentials");
    check_key(other, false, "O", "T", "shared credentials");
    check_denied(half, "profile 'half' has no key");
    struct s3_key k;
    CHECK_RC(s3_chain_get(role, false, &k, &err), RC_UNSUPPORTED);
    CLEANUP(mem_freep)
    char *region =
        s3_profile_get(&(struct s3_chain_options){.env = env, .profile = "other"}, "region");
    CLEANUP(mem_freep)
    char *usual = s3_profile_get(&(struct s3_chain_options){.env = env}, "region");
    CHECK_STR(region, "eu-2");
    CHECK_STR(usual, "eu-1");
    CHECK(!s3_profile_get(&(struct s3_chain_options){.env = env}, "nothing"));
    set("AWS_PROFILE", "other");
    CLEANUP(s3_chain_freep) struct s3_chain *by_variable = chain(NULL);
    check_key(by_variable, false, "O", "T", "shared credentials");
}

TEST(a_profile_that_was_asked_for_goes_before_the_environment)
{
    set("AWS_ACCESS_KEY_ID", "A");
    set("AWS_SECRET_ACCESS_KEY", "S");
    set("AWS_SHARED_CREDENTIALS_FILE", write_file("credentials", credentials));
    CLEANUP(s3_chain_freep) struct s3_chain *c = chain("other");
    check_key(c, false, "O", "T", "shared credentials");
}

/* ---- services ---- */

struct service {
    atomic_uint asked;
    atomic_uint lifetime_s;
    atomic_uint status; /* of what it refuses with, 0 = it answers */
};

static void when(unsigned in_s, char out[32])
{
    time_t t = time(NULL) + in_s;
    struct tm tm;
    (void)gmtime_r(&t, &tm);
    (void)strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static void answer_key(struct httpd_request *r)
{
    struct service *s = r->arg;
    char text[512], ends[32];
    when(atomic_load(&s->lifetime_s), ends);
    int n = snprintf(text, sizeof(text),
                     "{\"AccessKeyId\":\"K%u\",\"SecretAccessKey\":\"S\",\"Token\":\"T\","
                     "\"Expiration\":\"%s\"}",
                     atomic_fetch_add(&s->asked, 1), ends);
    httpd_reply(r, 200, NULL, text, (size_t)n);
}

static void container(struct httpd_request *r)
{
    struct service *s = r->arg;
    char text[64];
    CHECK_STR(r->target, "/key?x=1");
    CHECK_STR(httpd_header(r, "authorization", text, sizeof(text)), "token of the pod");
    if (atomic_load(&s->status))
        httpd_reply(r, atomic_load(&s->status), NULL, NULL, 0);
    else
        answer_key(r);
}

TEST(a_container_has_a_service_whose_keys_are_kept_until_they_end)
{
    struct service s = {.asked = 0, .lifetime_s = 3600};
    char url[128];
    CLEANUP(httpd_stopp) struct httpd *h = httpd_start(container, &s);
    (void)snprintf(url, sizeof(url), "%s/key?x=1", httpd_url(h));
    set("AWS_CONTAINER_CREDENTIALS_FULL_URI", url);
    set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", write_file("token", "token of the pod"));
    CLEANUP(s3_chain_freep) struct s3_chain *c = chain(NULL);
    check_key(c, false, "K0", "T", "container");
    check_key(c, false, "K0", "T", "container");
    atomic_store(&s.lifetime_s, 200); /* less than five minutes */
    check_key(c, true, "K1", "T", "container");
    check_key(c, false, "K2", "T", "container");
    atomic_store(&s.status, 500); /* the service is away, the key is still good */
    check_key(c, false, "K2", "T", "container");
    struct err err = ERR_INIT;
    struct s3_key k;
    CHECK_RC(s3_chain_get(c, true, &k, &err), RC_DENIED);
    CHECK(strstr(err.msg, "status 500"));
}

TEST(a_container_s_service_in_the_clear_is_refused)
{
    set("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/key");
    CLEANUP(s3_chain_freep) struct s3_chain *c = chain(NULL);
    check_denied(c, "must be https or local");
}

TEST(a_named_token_must_be_there)
{
    set("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/key");
    set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/nowhere/token");
    CLEANUP(s3_chain_freep) struct s3_chain *c = chain(NULL);
    check_denied(c, "'/nowhere/token', is not there");
}

static void machine(struct httpd_request *r)
{
    char text[64];
    if (strcmp(r->method, "PUT") == 0) {
        CHECK_STR(r->target, "/latest/api/token");
        CHECK_STR(httpd_header(r, "x-aws-ec2-metadata-token-ttl-seconds", text, sizeof(text)),
                  "21600");
        httpd_reply(r, 200, NULL, "session", 7);
        return;
    }
    CHECK_STR(httpd_header(r, "x-aws-ec2-metadata-token", text, sizeof(text)), "session");
    if (strcmp(r->target, "/latest/meta-data/iam/security-credentials/") == 0) {
        httpd_reply(r, 200, NULL, "my-role\n", 8);
        return;
    }
    CHECK_STR(r->target, "/latest/meta-data/iam/security-credentials/my-role");
    answer_key(r);
}

TEST(a_machine_has_a_role)
{
    struct service s = {.asked = 0, .lifetime_s = 3600};
    CLEANUP(httpd_stopp) struct httpd *h = httpd_start(machine, &s);
    set("AWS_EC2_METADATA_DISABLED", "false");
    set("AWS_EC2_METADATA_SERVICE_ENDPOINT", httpd_url(h));
    CLEANUP(s3_chain_freep) struct s3_chain *c = chain(NULL);
    check_key(c, false, "K0", "T", "instance metadata");
}

static void token_service(struct httpd_request *r)
{
    struct service *s = r->arg;
    char text[1024], ends[32];
    CHECK_STR(r->method, "POST");
    CHECK_STR(r->body, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&"
                       "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr&RoleSessionName=me&"
                       "WebIdentityToken=head.body.sign");
    when(atomic_load(&s->lifetime_s), ends);
    int n = atomic_load(&s->status)
                ? snprintf(text, sizeof(text),
                           "<ErrorResponse><Error><Message>not you</Message>"
                           "</Error></ErrorResponse>")
                : snprintf(text, sizeof(text),
                           "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult>"
                           "<Credentials><AccessKeyId>W%u</AccessKeyId><SecretAccessKey>S"
                           "</SecretAccessKey><SessionToken>T</SessionToken><Expiration>%s"
                           "</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
                           "</AssumeRoleWithWebIdentityResponse>",
                           atomic_fetch_add(&s->asked, 1), ends);
    httpd_reply(r, atomic_load(&s->status) ? atomic_load(&s->status) : 200, NULL, text, (size_t)n);
}

TEST(a_web_identity_is_exchanged)
{
    struct service s = {.asked = 0, .lifetime_s = 3600};
    CLEANUP(httpd_stopp) struct httpd *h = httpd_start(token_service, &s);
    set("AWS_ENDPOINT_URL_STS", httpd_url(h));
    set("AWS_WEB_IDENTITY_TOKEN_FILE", write_file("token", "head.body.sign"));
    set("AWS_ROLE_ARN", "arn:aws:iam::1:role/r");
    set("AWS_ROLE_SESSION_NAME", "me");
    CLEANUP(s3_chain_freep) struct s3_chain *c = chain(NULL);
    check_key(c, false, "W0", "T", "web identity");
    check_key(c, true, "W1", "T", "web identity");
    atomic_store(&s.status, 403);
    CLEANUP(s3_chain_freep) struct s3_chain *refused = chain(NULL);
    check_denied(refused, "not you");
}

TEST(times_are_read)
{
    CHECK_INT(s3_time("2013-05-24T00:00:00Z"), 1369353600);
    CHECK_INT(s3_time("2013-05-24T00:00:00.123Z"), 1369353600);
    CHECK_INT(s3_time("2013-05-24T00:00:00+00:00"), 1369353600);
    static const char *const bad[] = {"",
                                      "2013-05-24",
                                      "2013-05-24T00:00:00",
                                      "yesterday",
                                      "2013-05-24T00:00:00+02:00",
                                      "0000-00-00T00:00:00Z"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_INT(s3_time(bad[i]), 0);
}

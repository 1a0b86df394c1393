#include "backend/s3_credentials.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "codec/json.h"
#include "codec/xml.h"
#include "net/http.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EARLY_S 300 /* before its end a key is fetched anew */
#define FILE_MAX ((size_t)1 << 20)

struct found {
    struct s3_key key;
    uint64_t expires; /* seconds since 1970; 0 = never */
};

struct s3_chain {
    struct s3_chain_options o; /* texts are ours */
    struct http_client *http;  /* for services of this machine: direct, impatient */
    struct http_client *sts;
    pthread_mutex_t lock;
    struct found last;
};

static const char *env(const struct s3_chain_options *o, const char *name)
{
    const char *value = o->env ? o->env(name) : NULL;
    return value && *value ? value : NULL;
}

uint64_t s3_time(const char *text)
{
    struct tm tm = {0};
    int end = 0;
    if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
               &tm.tm_min, &tm.tm_sec, &end) != 6)
        return 0;
    if (text[end] == '.')
        end += 1 + (int)strspn(text + end + 1, "0123456789");
    if (strcmp(text + end, "Z") != 0 && strcmp(text + end, "+00:00") != 0)
        return 0;
    tm.tm_year -= 1900;
    tm.tm_mon--;
    time_t t = timegm(&tm);
    return t > 0 ? (uint64_t)t : 0;
}

/* ---- shared files ---- */

/* A line without blanks at its ends. */
static void trim(const char **p, size_t *len)
{
    while (*len > 0 && strchr(" \t\r", **p)) {
        ++*p;
        --*len;
    }
    while (*len > 0 && strchr(" \t\r", (*p)[*len - 1]))
        --*len;
}

bool s3_profile_value(const char *text, const char *section, const char *name, struct buf *out)
{
    bool inside = false;
    while (*text) {
        const char *line = text;
        size_t len = strcspn(text, "\n");
        text += len + (text[len] == '\n');
        trim(&line, &len);
        if (len > 1 && line[0] == '[' && line[len - 1] == ']') {
            line++;
            len -= 2;
            trim(&line, &len);
            inside = len == strlen(section) && memcmp(line, section, len) == 0;
            continue;
        }
        const char *equal = memchr(line, '=', len), *key = line;
        if (!inside || !equal || *line == '#' || *line == ';')
            continue;
        size_t key_len = (size_t)(equal - line), value_len = len - key_len - 1;
        const char *value = equal + 1;
        trim(&key, &key_len);
        trim(&value, &value_len);
        if (key_len == strlen(name) && memcmp(key, name, key_len) == 0) {
            buf_add(out, value, value_len);
            return true;
        }
    }
    return false;
}

static bool from_file(const struct s3_chain_options *o, const char *variable, const char *usual,
                      const char *section, const char *name, struct buf *out)
{
    const char *home = env(o, "HOME"), *given = env(o, variable);
    CLEANUP(mem_freep)
    char *path = given ? mem_strdup(given) : mem_asprintf("%s/.aws/%s", home ? home : "", usual);
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    return (given || home) && !fs_read_file(AT_FDCWD, path, FILE_MAX, &text, NULL) &&
           s3_profile_value(buf_str(&text), section, name, out);
}

char *s3_profile_get(const struct s3_chain_options *o, const char *name)
{
    const char *profile = o->profile ? o->profile : env(o, "AWS_PROFILE");
    profile = profile ? profile : "default";
    CLEANUP(buf_done) struct buf value = BUF_INIT;
    CLEANUP(mem_freep)
    char *section =
        strcmp(profile, "default") == 0 ? mem_strdup(profile) : mem_asprintf("profile %s", profile);
    if (from_file(o, "AWS_SHARED_CREDENTIALS_FILE", "credentials", profile, name, &value) ||
        from_file(o, "AWS_CONFIG_FILE", "config", section, name, &value))
        return mem_strdup(buf_str(&value));
    return NULL;
}

/* ---- answers of services ---- */

static void take(struct found *f, const char *source, const char *access, const char *secret,
                 const char *token, uint64_t expires)
{
    f->key = (struct s3_key){.access = mem_strdup(access),
                             .secret = mem_strdup(secret),
                             .token = token && *token ? mem_strdup(token) : NULL,
                             .source = source};
    f->expires = expires;
}

static enum rc from_json(const struct http_response *a, const char *source, struct found *out,
                         struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    enum rc rc = json_parse(source, buf_str(&a->body), a->body.len, &doc, err);
    if (rc)
        return rc;
    yyjson_val *root = yyjson_doc_get_root(doc);
    const char *access = json_str(root, "AccessKeyId", NULL);
    const char *secret = json_str(root, "SecretAccessKey", NULL);
    if (!access || !secret)
        return err_set(err, RC_INVALID, "%s answers without a key", source);
    take(out, source, access, secret, json_str(root, "Token", ""),
         s3_time(json_str(root, "Expiration", "")));
    return RC_OK;
}

/* GET or PUT; only 200 is good.  header: one, or NULL */
static enum rc ask(struct http_client *http, const char *method, const char *url,
                   const char *header, const char *source, struct http_response *out,
                   struct err *err)
{
    struct http_response a = {0};
    enum rc rc = http_do(http,
                         &(struct http_request){.method = method,
                                                .url = url,
                                                .headers = &header,
                                                .n_headers = header ? 1 : 0,
                                                .has_body = strcmp(method, "PUT") == 0,
                                                .deadline = clock_now() + 20 * CLOCK_S},
                         &a, err);
    if (!rc && a.status != 200) {
        rc = err_set(err, RC_DENIED, "%s answers with status %u", source, a.status);
        http_response_done(&a);
    }
    if (!rc)
        *out = a;
    return rc;
}

/* ---- the chain: each sets `out` and RC_OK, or RC_NOT_FOUND when it has nothing to say ---- */

static enum rc from_environment(struct s3_chain *c, struct found *out, struct err *err)
{
    const char *access = env(&c->o, "AWS_ACCESS_KEY_ID");
    const char *secret = env(&c->o, "AWS_SECRET_ACCESS_KEY");
    if (!access || c->o.profile) /* a profile that was asked for goes before */
        return RC_NOT_FOUND;
    if (!secret)
        return err_set(err, RC_DENIED, "AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY");
    take(out, "the environment", access, secret, env(&c->o, "AWS_SESSION_TOKEN"), 0);
    return RC_OK;
}

struct sts {
    char *access, *secret, *token, *expiration, *message;
};

static enum rc note_sts(void *arg, const char *path, const char *text, struct err *err)
{
    struct sts *s = arg;
    const char *name = strrchr(path, '/') + 1;
    char **place = strcmp(name, "AccessKeyId") == 0       ? &s->access
                   : strcmp(name, "SecretAccessKey") == 0 ? &s->secret
                   : strcmp(name, "SessionToken") == 0    ? &s->token
                   : strcmp(name, "Expiration") == 0      ? &s->expiration
                   : strcmp(name, "Message") == 0         ? &s->message
                                                          : NULL;
    (void)err;
    if (place) {
        free(*place);
        *place = mem_strdup(text);
    }
    return RC_OK;
}

static void sts_done(struct sts *s)
{
    free(s->access);
    free(s->secret);
    free(s->token);
    free(s->expiration);
    free(s->message);
}

static enum rc read_sts(const struct http_response *a, struct found *out, struct err *err)
{
    static const char source[] = "the token service";
    CLEANUP(sts_done) struct sts s = {NULL};
    enum rc rc = xml_read(source, buf_str(&a->body), a->body.len, note_sts, &s, err);
    if (a->status != 200)
        return err_set(err, RC_DENIED, "%s refuses the web identity: status %u: %.200s", source,
                       a->status, s.message ? s.message : "");
    if (rc)
        return rc;
    if (!s.access || !s.secret || !s.token)
        return err_set(err, RC_INVALID, "%s answers without a key", source);
    take(out, "a web identity", s.access, s.secret, s.token,
         s3_time(s.expiration ? s.expiration : ""));
    return RC_OK;
}

/* A file that is named must be there: RC_NOT_FOUND would lead the search on. */
static enum rc unreadable(enum rc rc, const char *what, const char *file, struct err *err)
{
    if (rc == RC_NOT_FOUND)
        return err_set(err, RC_DENIED, "the token of the %s, '%s', is not there", what, file);
    return err_ctx(err, rc, "token of the %s", what);
}

static enum rc assume(struct s3_chain *c, const char *role, const char *file, const char *session,
                      struct found *out, struct err *err)
{
    CLEANUP(buf_done) struct buf token = BUF_INIT;
    CLEANUP(buf_done) struct buf form = BUF_INIT;
    CLEANUP(http_response_done) struct http_response a = {0};
    const char *given = env(&c->o, "AWS_ENDPOINT_URL_STS");
    CLEANUP(mem_freep)
    char *url = given ? mem_asprintf("%s/", given)
                      : mem_asprintf("https://sts.%s.amazonaws.com/", c->o.region);
    enum rc rc = fs_read_file(AT_FDCWD, file, FILE_MAX, &token, err);
    if (rc)
        return unreadable(rc, "web identity", file, err);
    buf_adds(&form, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=");
    http_escape(role, "", &form);
    buf_adds(&form, "&RoleSessionName=");
    http_escape(session ? session : "chrek", "", &form);
    buf_adds(&form, "&WebIdentityToken=");
    http_escape(buf_str(&token), "", &form);
    const char *const headers[] = {"Content-Type: application/x-www-form-urlencoded"};
    rc = http_do(c->sts,
                 &(struct http_request){.method = "POST",
                                        .url = url,
                                        .headers = headers,
                                        .n_headers = 1,
                                        .body = buf_str(&form),
                                        .body_len = form.len,
                                        .repeat = HTTP_REPEAT_YES,
                                        .deadline = clock_now() + 60 * CLOCK_S},
                 &a, err);
    return rc ? rc : read_sts(&a, out, err);
}

static enum rc from_web_identity(struct s3_chain *c, struct found *out, struct err *err)
{
    const char *file = env(&c->o, "AWS_WEB_IDENTITY_TOKEN_FILE");
    const char *role = env(&c->o, "AWS_ROLE_ARN");
    if (!file || !role)
        return RC_NOT_FOUND;
    return assume(c, role, file, env(&c->o, "AWS_ROLE_SESSION_NAME"), out, err);
}

static enum rc from_profile(struct s3_chain *c, struct found *out, struct err *err)
{
    CLEANUP(mem_freep) char *access = s3_profile_get(&c->o, "aws_access_key_id");
    CLEANUP(mem_freep) char *secret = s3_profile_get(&c->o, "aws_secret_access_key");
    CLEANUP(mem_freep) char *token = s3_profile_get(&c->o, "aws_session_token");
    CLEANUP(mem_freep) char *role = s3_profile_get(&c->o, "role_arn");
    CLEANUP(mem_freep) char *file = s3_profile_get(&c->o, "web_identity_token_file");
    if (role && file)
        return assume(c, role, file, NULL, out, err);
    if (role)
        return err_set(err, RC_UNSUPPORTED,
                       "the profile names role_arn without web_identity_token_file");
    if (access && secret) {
        take(out, "the shared credentials file", access, secret, token, 0);
        return RC_OK;
    }
    if (c->o.profile)
        return err_set(err, RC_DENIED, "profile '%.60s' has no key in the shared files",
                       c->o.profile);
    return RC_NOT_FOUND;
}

/* Plain HTTP is for the addresses that never leave the machine. */
static bool may_ask(const char *url)
{
    static const char *const local[] = {"http://169.254.170.2/",  "http://169.254.170.23/",
                                        "http://127.0.0.1:",      "http://127.0.0.1/",
                                        "http://localhost:",      "http://localhost/",
                                        "http://[fd00:ec2::23]/", "https://"};
    for (size_t i = 0; i < ARRAY_LEN(local); i++)
        if (strncmp(url, local[i], strlen(local[i])) == 0)
            return true;
    return false;
}

static enum rc from_container(struct s3_chain *c, struct found *out, struct err *err)
{
    const char *relative = env(&c->o, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = env(&c->o, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
    const char *plain = env(&c->o, "AWS_CONTAINER_AUTHORIZATION_TOKEN");
    const char *file = env(&c->o, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    if (!relative && !full)
        return RC_NOT_FOUND;
    CLEANUP(buf_done) struct buf header = BUF_INIT;
    CLEANUP(http_response_done) struct http_response a = {0};
    CLEANUP(mem_freep)
    char *url = relative ? mem_asprintf("http://169.254.170.2%s", relative) : mem_strdup(full);
    if (!may_ask(url))
        return err_set(err, RC_DENIED, "the container's credential service must be https or local");
    buf_adds(&header, "Authorization: ");
    enum rc rc = file ? fs_read_file(AT_FDCWD, file, FILE_MAX, &header, err) : RC_OK;
    if (rc)
        return unreadable(rc, "container", file, err);
    if (!file && plain)
        buf_adds(&header, plain);
    rc = ask(c->http, "GET", url, file || plain ? buf_str(&header) : NULL,
             "the container's credential service", &a, err);
    return rc ? rc : from_json(&a, "the container's credential service", out, err);
}

static enum rc from_machine(struct s3_chain *c, struct found *out, struct err *err)
{
    static const char source[] = "the instance metadata service";
    const char *off = env(&c->o, "AWS_EC2_METADATA_DISABLED");
    const char *given = env(&c->o, "AWS_EC2_METADATA_SERVICE_ENDPOINT");
    const char *base = given ? given : "http://169.254.169.254";
    if (off && strcmp(off, "true") == 0)
        return RC_NOT_FOUND;
    CLEANUP(http_response_done) struct http_response token = {0}, roles = {0}, a = {0};
    CLEANUP(mem_freep) char *url = mem_asprintf("%s/latest/api/token", base);
    if (ask(c->http, "PUT", url, "X-aws-ec2-metadata-token-ttl-seconds: 21600", source, &token,
            NULL))
        return RC_NOT_FOUND; /* no such machine */
    CLEANUP(mem_freep)
    char *header = mem_asprintf("X-aws-ec2-metadata-token: %s", buf_str(&token.body));
    CLEANUP(mem_freep)
    char *list = mem_asprintf("%s/latest/meta-data/iam/security-credentials/", base);
    enum rc rc = ask(c->http, "GET", list, header, source, &roles, err);
    if (rc)
        return rc;
    CLEANUP(mem_freep)
    char *one = mem_asprintf("%s%.*s", list, (int)strcspn(buf_str(&roles.body), "\r\n"),
                             buf_str(&roles.body));
    rc = ask(c->http, "GET", one, header, source, &a, err);
    return rc ? rc : from_json(&a, source, out, err);
}

static enum rc find(struct s3_chain *c, struct found *out, struct err *err)
{
    static enum rc (*const ways[])(struct s3_chain *, struct found *, struct err *) = {
        from_environment, from_web_identity, from_profile, from_container, from_machine};
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        enum rc rc = ways[i](c, out, err);
        if (rc != RC_NOT_FOUND)
            return rc;
    }
    return err_set(
        err, RC_DENIED,
        "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile, or "
        "give this machine or container a role");
}

/* ---- the interface ---- */

enum rc s3_chain_open(const struct s3_chain_options *o, struct s3_chain **out, struct err *err)
{
    const struct http_options near = {.direct = true,
                                      .connect_timeout_ns = 2 * CLOCK_S,
                                      .stall_timeout_ns = 5 * CLOCK_S,
                                      .tries = 2};
    const struct http_options far = {.ca_file = o->ca_file};
    struct s3_chain *c = mem_zalloc(sizeof(*c));
    c->o = *o;
    c->o.profile = mem_strdup(o->profile);
    c->o.region = mem_strdup(o->region);
    c->o.ca_file = NULL;
    (void)pthread_mutex_init(&c->lock, NULL);
    enum rc rc = http_open(&near, &c->http, err);
    if (!rc)
        rc = http_open(&far, &c->sts, err);
    if (rc)
        s3_chain_freep(&c);
    else
        *out = c;
    return rc;
}

static void free_text(const char *text)
{
    free((void *)(uintptr_t)text);
}

void s3_chain_freep(struct s3_chain **chain)
{
    struct s3_chain *c = STEAL(*chain);
    if (!c)
        return;
    http_closep(&c->http);
    http_closep(&c->sts);
    s3_key_done(&c->last.key);
    free_text(c->o.profile);
    free_text(c->o.region);
    (void)pthread_mutex_destroy(&c->lock);
    free(c);
}

void s3_chain_after_fork(struct s3_chain *c)
{
    (void)pthread_mutex_init(&c->lock, NULL);
    http_after_fork(c->http);
    http_after_fork(c->sts);
}

enum rc s3_chain_get(struct s3_chain *c, bool fresh, struct s3_key *out, struct err *err)
{
    struct found f = {.expires = 0};
    enum rc rc = RC_OK;
    (void)pthread_mutex_lock(&c->lock);
    uint64_t now = (uint64_t)time(NULL);
    if (fresh || !c->last.key.access || (c->last.expires && c->last.expires < now + EARLY_S)) {
        rc = find(c, &f, err);
        /* As long as the old one is good, a service may be away. */
        if (rc && !fresh && c->last.key.access && c->last.expires > now)
            rc = RC_OK;
        else if (!rc) {
            s3_key_done(&c->last.key);
            c->last = f;
        }
    }
    if (!rc)
        *out = (struct s3_key){.access = mem_strdup(c->last.key.access),
                               .secret = mem_strdup(c->last.key.secret),
                               .token = mem_strdup(c->last.key.token),
                               .source = c->last.key.source};
    (void)pthread_mutex_unlock(&c->lock);
    return rc;
}

void s3_key_done(struct s3_key *k)
{
    if (k->secret)
        explicit_bzero(k->secret, strlen(k->secret));
    free(k->access);
    free(k->secret);
    free(k->token);
    *k = (struct s3_key){.access = NULL};
}

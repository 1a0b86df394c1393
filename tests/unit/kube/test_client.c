#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "codec/json.h"
#include "harness/httpd.h"
#include "harness/test.h"
#include "kube/client.h"
#include "kube/event.h"

#include <fcntl.h>
#include <stdio.h>

/* A client of the server, with a token in a file. */
static struct kube *open_client(const struct httpd *s, const char *token)
{
    struct err err = ERR_INIT;
    struct kube *k = NULL;
    char path[256], server[64];
    (void)snprintf(path, sizeof(path), "%s/token", test_dir());
    (void)snprintf(server, sizeof(server), "%s", httpd_url(s));
    CHECK_OK(fs_write_whole(AT_FDCWD, path, token, strlen(token), 0600, &err));
    struct kube_config c = {.server = server, .token_file = path};
    CHECK_OK(kube_open(&c, &k, &err));
    return k;
}

static void reply(struct httpd_request *r, unsigned status, const char *json)
{
    httpd_reply(r, status, "Content-Type: application/json\r\n", json, strlen(json));
}

/* ---- one object ---- */

static void echo(struct httpd_request *r)
{
    char token[64], type[64], text[4608];
    (void)httpd_header(r, "authorization", token, sizeof(token));
    (void)httpd_header(r, "content-type", type, sizeof(type));
    (void)snprintf(text, sizeof(text), "{\"said\":\"%s %s %s %s\"}", r->method, r->target, type,
                   token);
    reply(r, 200, text);
}

TEST(each_verb_is_sent_as_the_server_knows_it)
{
    static const struct {
        enum kube_verb verb;
        bool body;
        const char *want;
    } cases[] = {
        {KUBE_GET, false, "GET /a  Bearer t"},
        {KUBE_CREATE, true, "POST /a application/json Bearer t"},
        {KUBE_REPLACE, true, "PUT /a application/json Bearer t"},
        {KUBE_DELETE, false, "DELETE /a  Bearer t"},
        {KUBE_MERGE_PATCH, true, "PATCH /a application/merge-patch+json Bearer t"},
        {KUBE_JSON_PATCH, true, "PATCH /a application/json-patch+json Bearer t"},
        {KUBE_APPLY, true, "PATCH /a application/apply-patch+yaml Bearer t"},
    };
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(echo, NULL);
    CLEANUP(kube_closep) struct kube *k = open_client(s, "t\n");
    CLEANUP(json_mut_docp) yyjson_mut_doc *body = yyjson_mut_doc_new(NULL);
    yyjson_mut_doc_set_root(body, yyjson_mut_obj(body));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        CLEANUP(json_docp) yyjson_doc *doc = NULL;
        CHECK_OK(kube_do(k, cases[i].verb, "/a", cases[i].body ? body : NULL, &doc, &err));
        CHECK_STR(json_str(yyjson_doc_get_root(doc), "said", ""), cases[i].want);
    }
}

TEST(a_new_token_is_used_at_once)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(echo, NULL);
    CLEANUP(kube_closep) struct kube *k = open_client(s, "old");
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/token", test_dir());
    CHECK_OK(kube_do(k, KUBE_GET, "/a", NULL, NULL, &err));
    CHECK_OK(fs_write_whole(AT_FDCWD, path, "new", 3, 0600, &err));
    CHECK_OK(kube_do(k, KUBE_GET, "/a", NULL, &doc, &err));
    CHECK_STR(json_str(yyjson_doc_get_root(doc), "said", ""), "GET /a  Bearer new");
}

struct refusal {
    const char *reason;
    unsigned status;
    enum rc want;
};

static void refuse(struct httpd_request *r)
{
    const struct refusal *f = r->arg;
    char text[256];
    (void)snprintf(text, sizeof(text),
                   "{\"kind\":\"Status\",\"message\":\"because\",\"reason\":\"%s\",\"code\":%u}",
                   f->reason, f->status);
    reply(r, f->status, text);
}

TEST(a_refusal_has_a_code_and_the_servers_words)
{
    static const struct refusal cases[] = {
        {"Unauthorized", 401, RC_DENIED},  {"Forbidden", 403, RC_DENIED},
        {"NotFound", 404, RC_NOT_FOUND},   {"Conflict", 409, RC_CONFLICT},
        {"AlreadyExists", 409, RC_EXISTS}, {"Expired", 410, RC_CONFLICT},
        {"Invalid", 422, RC_INVALID},      {"UnsupportedMediaType", 415, RC_INVALID}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        CLEANUP(httpd_stopp) struct httpd *s = httpd_start(refuse, (void *)(uintptr_t)&cases[i]);
        CLEANUP(kube_closep) struct kube *k = open_client(s, "t");
        CHECK_RC(kube_do(k, KUBE_GET, "/api/v1/x", NULL, NULL, &err), cases[i].want);
        CHECK(strstr(err.msg, "because") && strstr(err.msg, cases[i].reason));
    }
}

static void busy_at_first(struct httpd_request *r)
{
    if (r->number == 0)
        httpd_reply(r, 429, "Retry-After: 1\r\n", "{}", 2);
    else
        reply(r, 200, "{\"ok\":true}");
}

TEST(a_busy_server_is_asked_again_when_it_wants_to_be)
{
    struct err err = ERR_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(busy_at_first, NULL);
    CLEANUP(kube_closep) struct kube *k = open_client(s, "t");
    uint64_t begun = clock_now();
    CHECK_OK(kube_do(k, KUBE_GET, "/a", NULL, NULL, &err));
    CHECK(clock_now() - begun >= CLOCK_S);
    CHECK_INT(httpd_requests(s), 2);
}

/* ---- lists ---- */

static void pages(struct httpd_request *r)
{
    if (strstr(r->target, "continue=two%2F"))
        reply(r, 200, "{\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[{\"n\":3}]}");
    else if (strcmp(r->target, "/p?labelSelector=a%3Db&fieldSelector=c%3Dd&limit=2") == 0)
        reply(r, 200,
              "{\"metadata\":{\"resourceVersion\":\"7\",\"continue\":\"two/\"},"
              "\"items\":[{\"n\":1},{\"n\":2}]}");
    else
        reply(r, 400, "{\"message\":\"what?\"}");
}

static enum rc add_n(void *arg, yyjson_val *object, struct err *err)
{
    uint64_t *sum = arg;
    (void)err;
    *sum = *sum * 10 + json_u64(object, "n", 9);
    return RC_OK;
}

TEST(a_list_comes_page_by_page)
{
    struct err err = ERR_INIT;
    char version[KUBE_VERSION_MAX];
    uint64_t seen = 0;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(pages, NULL);
    CLEANUP(kube_closep) struct kube *k = open_client(s, "t");
    const struct kube_collection c = {.path = "/p", .labels = "a=b", .fields = "c=d", .page = 2};
    CHECK_OK(kube_list(k, &c, add_n, &seen, version, &err));
    CHECK_INT(seen, 123);
    CHECK_STR(version, "7");
}

/* ---- watches ---- */

static void send_chunk(struct httpd_request *r, const char *text)
{
    httpd_sendf(r, "%zx\r\n%s\r\n", strlen(text), text);
}

static const char head[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

static void stream(struct httpd_request *r)
{
    CHECK(strstr(r->target, "watch=true&allowWatchBookmarks=true&timeoutSeconds=300&"
                            "resourceVersion=5"));
    httpd_sendf(r, "%s", head);
    send_chunk(r,
               "{\"type\":\"ADDED\",\"object\":{\"n\":1,\"metadata\":{\"resourceVersion\":\"6\"}}");
    send_chunk(r,
               "}\n{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"8\"}}}\n"
               "{\"type\":\"DELETED\",\"ob");
    send_chunk(r, "ject\":{\"n\":2,\"metadata\":{\"resourceVersion\":\"9\"}}}\n");
    const char *end = r->arg;
    if (end)
        send_chunk(r, end);
    httpd_sendf(r, "0\r\n\r\n");
}

static enum rc on_change(void *arg, enum kube_change change, yyjson_val *object, struct err *err)
{
    uint64_t *sum = arg;
    (void)err;
    *sum = *sum * 100 + (uint64_t)change * 10 + json_u64(object, "n", 9);
    return RC_OK;
}

static enum rc watch(const char *end, char *version, void *seen, struct err *err)
{
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(stream, (void *)(uintptr_t)end);
    CLEANUP(kube_closep) struct kube *k = open_client(s, "t");
    const struct kube_collection c = {.path = "/p"};
    const struct kube_watcher w = {.change = on_change, .arg = seen};
    return kube_watch(k, &c, &w, version, err);
}

TEST(a_watch_tells_of_changes_however_they_are_cut)
{
    struct err err = ERR_INIT;
    char version[KUBE_VERSION_MAX] = "5";
    uint64_t seen = 0;
    CHECK_OK(watch(NULL, version, &seen, &err));
    CHECK_INT(seen, KUBE_ADDED * 1000 + 100 + KUBE_DELETED * 10 + 2);
    CHECK_STR(version, "9");
}

TEST(a_version_that_is_too_old_is_a_conflict)
{
    struct err err = ERR_INIT;
    char version[KUBE_VERSION_MAX] = "5";
    uint64_t seen = 0;
    CHECK_RC(watch("{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410,"
                   "\"message\":\"too old\",\"reason\":\"Expired\"}}\n",
                   version, &seen, &err),
             RC_CONFLICT);
    CHECK(strstr(err.msg, "too old"));
}

TEST(an_event_that_makes_no_sense_ends_the_watch_behind_the_last_good_one)
{
    static const char *const bad[] = {"no json\n", "{\"type\":\"NEW\",\"object\":{}}\n",
                                      "{\"type\":\"ADDED\",\"object\":{\"n\":3}}\n"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        char version[KUBE_VERSION_MAX] = "5";
        uint64_t seen = 0;
        CHECK_RC(watch(bad[i], version, &seen, &err), RC_CORRUPT);
        CHECK_STR(version, "9");
    }
}

/* ---- for ever ---- */

/* List, watch that is cut, watch that is too old, list, watch, end. */
struct story {
    atomic_bool cancel;
    unsigned lists, watches;
    char seen[256];
};

static void serve_story(struct httpd_request *r)
{
    struct story *s = r->arg;
    if (!strstr(r->target, "watch=true")) {
        s->lists++;
        reply(r, 200,
              s->lists == 1
                  ? "{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[{\"n\":1},{\"n\":2}]}"
                  : "{\"metadata\":{\"resourceVersion\":\"5\"},\"items\":[{\"n\":2}]}");
        return;
    }
    s->watches++;
    httpd_sendf(r, "%s", head);
    if (s->watches == 1) {
        CHECK(strstr(r->target, "resourceVersion=1"));
        send_chunk(r, "{\"type\":\"ADDED\",\"object\":{\"n\":3,\"metadata\":{\"resourceVersion\":"
                      "\"2\"}}}\n{\"type\":\"ADD");
        httpd_reset(r);
    } else if (s->watches == 2) {
        CHECK(strstr(r->target, "resourceVersion=2"));
        send_chunk(r, "{\"type\":\"ERROR\",\"object\":{\"code\":410,\"message\":\"too old\"}}\n");
        httpd_sendf(r, "0\r\n\r\n");
    } else {
        CHECK(strstr(r->target, "resourceVersion=5"));
        atomic_store(&s->cancel, true);
        httpd_sendf(r, "0\r\n\r\n");
    }
}

static void note(struct story *s, const char *word)
{
    size_t len = strlen(s->seen);
    (void)snprintf(s->seen + len, sizeof(s->seen) - len, "%s ", word);
}

static void on_begin(void *arg)
{
    note(arg, "begin");
}

static void on_end(void *arg)
{
    note(arg, "end");
}

static void on_take(void *arg, bool gone, yyjson_val *object)
{
    char word[32];
    (void)snprintf(word, sizeof(word), "%s%u", gone ? "-" : "+",
                   (unsigned)json_u64(object, "n", 9));
    note(arg, word);
}

static void on_trouble(void *arg, const struct err *why, uint64_t pause_ns)
{
    (void)why;
    CHECK(pause_ns > 0);
    note(arg, "trouble");
}

TEST(following_survives_cuts_and_forgotten_versions)
{
    struct story s = {.seen = ""};
    CLEANUP(httpd_stopp) struct httpd *server = httpd_start(serve_story, &s);
    CLEANUP(kube_closep) struct kube *k = open_client(server, "t");
    const struct kube_collection c = {.path = "/p"};
    const struct kube_follower f = {.begin = on_begin,
                                    .end = on_end,
                                    .take = on_take,
                                    .trouble = on_trouble,
                                    .arg = &s,
                                    .pause_max_ns = 10 * CLOCK_MS};
    kube_follow(k, &c, &f, &s.cancel);
    CHECK_STR(s.seen, "begin +1 +2 end +3 trouble trouble begin +2 end ");
}

/* ---- events ---- */

static void keep_body(struct httpd_request *r)
{
    struct buf *b = r->arg;
    CHECK_STR(r->target, "/api/v1/namespaces/ns/events");
    buf_add(b, r->body, r->body_len);
    reply(r, 201, "{}");
}

TEST(an_event_says_of_whom_it_is)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf body = BUF_INIT;
    CLEANUP(httpd_stopp) struct httpd *s = httpd_start(keep_body, &body);
    CLEANUP(kube_closep) struct kube *k = open_client(s, "t");
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    char message[2000];
    memset(message, 'x', sizeof(message));
    memcpy(message + 1023, "\xc3\xa9", 2); /* a character across the limit */
    message[sizeof(message) - 1] = '\0';
    const struct kube_event e = {.warning = true,
                                 .reason = "R",
                                 .message = message,
                                 .component = "c",
                                 .node = "n",
                                 .name = "pod",
                                 .name_space = "ns",
                                 .uid = "u"};
    CHECK_OK(kube_event_post(k, &e, &err));
    CHECK_OK(json_parse("it", buf_str(&body), body.len, &doc, &err));
    yyjson_val *root = yyjson_doc_get_root(doc), *of = yyjson_obj_get(root, "involvedObject");
    CHECK_STR(json_str(root, "type", ""), "Warning");
    CHECK_STR(json_str(of, "uid", ""), "u");
    CHECK_STR(json_str(of, "kind", ""), "Pod");
    CHECK_INT(strlen(json_str(root, "message", "")), 1023);
    CHECK(strncmp(json_str(yyjson_obj_get(root, "metadata"), "name", ""), "pod.", 4) == 0);
}

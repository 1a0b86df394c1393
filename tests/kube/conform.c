/* What chrek expects of an API server, tried on the one that $KUBECONFIG names: the double of
 * tests/fakes, or a real one.  Pods are made in the namespace "default", and taken away. */
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/rand.h"
#include "codec/json.h"
#include "harness/test.h"
#include "kube/client.h"
#include "kube/event.h"
#include "kube/pod.h"

#include <stdio.h>
#include <stdlib.h>

#define PODS "/api/v1/namespaces/default/pods"

static void read_config(struct kube_config *c)
{
    struct err err = ERR_INIT;
    const char *path = getenv("KUBECONFIG");
    if (!path)
        test_skip("machine: no KUBECONFIG");
    CHECK_OK(kube_config_read(path, NULL, c, &err));
}

static struct kube *open_server(void)
{
    struct err err = ERR_INIT;
    struct kube *k = NULL;
    CLEANUP(kube_config_done) struct kube_config c = {.server = NULL};
    read_config(&c);
    CHECK_OK(kube_open(&c, &k, &err));
    return k;
}

/* A name for this test's pods, which is also their label. */
struct names {
    char run[24];
    char path[160];
};

static struct names names(void)
{
    struct names n;
    char hex[9];
    rand_hex(hex, 8);
    (void)snprintf(n.run, sizeof(n.run), "chrek-%s", hex);
    return n;
}

static const char *path_of(struct names *n, unsigned number, const char *tail)
{
    (void)snprintf(n->path, sizeof(n->path), PODS "/%s-%u%s", n->run, number, tail);
    return n->path;
}

static yyjson_mut_doc *parse(const char *text)
{
    yyjson_doc *doc = yyjson_read(text, strlen(text), 0);
    CHECK(doc);
    yyjson_mut_doc *copy = yyjson_doc_mut_copy(doc, NULL);
    yyjson_doc_free(doc);
    return copy;
}

static enum rc send_text(struct kube *k, enum kube_verb verb, const char *path, const char *text,
                         yyjson_doc **out, struct err *err)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *body = text ? parse(text) : NULL;
    return kube_do(k, verb, path, body, out, err);
}

static enum rc make_pod(struct kube *k, const struct names *n, unsigned number, struct err *err)
{
    char text[512];
    (void)snprintf(text, sizeof(text),
                   "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"%s-%u\","
                   "\"labels\":{\"chrek.io/run\":\"%s\"},\"annotations\":{\"chrek.io/a\":\"1\"}},"
                   "\"spec\":{\"nodeName\":\"nowhere\",\"containers\":[{\"name\":\"main\","
                   "\"image\":\"none\"}]}}",
                   n->run, number, n->run);
    return send_text(k, KUBE_CREATE, PODS, text, NULL, err);
}

static void delete_pod(struct kube *k, struct names *n, unsigned number)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep)
    char *path = mem_asprintf("%s", path_of(n, number, "?gracePeriodSeconds=0"));
    CHECK_OK(kube_do(k, KUBE_DELETE, path, NULL, NULL, &err));
}

static struct kube_pod get_pod(struct kube *k, struct names *n, unsigned number)
{
    struct err err = ERR_INIT;
    struct kube_pod p;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CHECK_OK(kube_do(k, KUBE_GET, path_of(n, number, ""), NULL, &doc, &err));
    CHECK_OK(kube_pod_read(yyjson_doc_get_root(doc), &p, &err));
    return p;
}

TEST(a_pod_is_made_once_read_and_deleted)
{
    struct err err = ERR_INIT;
    CLEANUP(kube_closep) struct kube *k = open_server();
    struct names n = names();
    CHECK_RC(kube_do(k, KUBE_GET, path_of(&n, 1, ""), NULL, NULL, &err), RC_NOT_FOUND);
    CHECK_OK(make_pod(k, &n, 1, &err));
    CHECK_RC(make_pod(k, &n, 1, &err), RC_EXISTS);
    CLEANUP(kube_pod_done) struct kube_pod p = get_pod(k, &n, 1);
    CHECK_STR(p.name_space, "default");
    CHECK_STR(p.node, "nowhere");
    CHECK_STR(p.containers[0].name, "main");
    CHECK(!p.running && !p.ready);
    delete_pod(k, &n, 1);
    CHECK_RC(kube_do(k, KUBE_GET, path_of(&n, 1, ""), NULL, NULL, &err), RC_NOT_FOUND);
}

TEST(a_merge_patch_sets_and_removes_annotations_of_the_right_pod)
{
    struct err err = ERR_INIT;
    CLEANUP(kube_closep) struct kube *k = open_server();
    struct names n = names();
    CHECK_OK(make_pod(k, &n, 1, &err));
    CHECK_OK(send_text(
        k, KUBE_MERGE_PATCH, path_of(&n, 1, ""),
        "{\"metadata\":{\"annotations\":{\"chrek.io/a\":null,\"chrek.io/b\":\"2\"}}}", NULL, &err));
    CLEANUP(kube_pod_done) struct kube_pod p = get_pod(k, &n, 1);
    CHECK(!kube_pod_annotation(&p, "chrek.io/a"));
    CHECK_STR(kube_pod_annotation(&p, "chrek.io/b"), "2");
    enum rc rc = send_text(k, KUBE_MERGE_PATCH, path_of(&n, 1, ""),
                           "{\"metadata\":{\"uid\":\"another\",\"annotations\":"
                           "{\"chrek.io/b\":\"3\"}}}",
                           NULL, &err);
    CHECK(rc == RC_CONFLICT || rc == RC_INVALID);
    delete_pod(k, &n, 1);
    CHECK_RC(send_text(k, KUBE_MERGE_PATCH, path_of(&n, 1, ""), "{\"metadata\":{}}", NULL, &err),
             RC_NOT_FOUND);
}

TEST(a_replacement_of_an_old_version_is_a_conflict)
{
    struct err err = ERR_INIT;
    CLEANUP(kube_closep) struct kube *k = open_server();
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    struct names n = names();
    CHECK_OK(make_pod(k, &n, 1, &err));
    CHECK_OK(kube_do(k, KUBE_GET, path_of(&n, 1, ""), NULL, &doc, &err));
    CLEANUP(json_mut_docp) yyjson_mut_doc *old = yyjson_doc_mut_copy(doc, NULL);
    CHECK_OK(send_text(k, KUBE_MERGE_PATCH, path_of(&n, 1, ""),
                       "{\"metadata\":{\"annotations\":{\"chrek.io/b\":\"2\"}}}", NULL, &err));
    CHECK_RC(kube_do(k, KUBE_REPLACE, path_of(&n, 1, ""), old, NULL, &err), RC_CONFLICT);
    delete_pod(k, &n, 1);
}

TEST(the_status_is_a_resource_of_its_own)
{
    struct err err = ERR_INIT;
    CLEANUP(kube_closep) struct kube *k = open_server();
    struct names n = names();
    CHECK_OK(make_pod(k, &n, 1, &err));
    static const char status[] =
        "{\"status\":{\"phase\":\"Running\",\"conditions\":[{\"type\":\"Ready\","
        "\"status\":\"True\"}]}}";
    CHECK_OK(send_text(k, KUBE_MERGE_PATCH, path_of(&n, 1, ""), status, NULL, &err));
    CLEANUP(kube_pod_done) struct kube_pod before = get_pod(k, &n, 1);
    CHECK(!before.running && !before.ready);
    CHECK_OK(send_text(k, KUBE_MERGE_PATCH, path_of(&n, 1, "/status"), status, NULL, &err));
    CLEANUP(kube_pod_done) struct kube_pod after = get_pod(k, &n, 1);
    CHECK(after.running && after.ready);
    delete_pod(k, &n, 1);
}

TEST(patches_are_tested_and_applied)
{
    struct err err = ERR_INIT;
    CLEANUP(kube_closep) struct kube *k = open_server();
    struct names n = names();
    char text[512];
    CHECK_OK(make_pod(k, &n, 1, &err));
    CHECK_RC(send_text(k, KUBE_JSON_PATCH, path_of(&n, 1, ""),
                       "[{\"op\":\"test\",\"path\":\"/metadata/annotations/chrek.io~1a\","
                       "\"value\":\"2\"}]",
                       NULL, &err),
             RC_INVALID);
    CHECK_OK(send_text(k, KUBE_JSON_PATCH, path_of(&n, 1, ""),
                       "[{\"op\":\"test\",\"path\":\"/metadata/annotations/chrek.io~1a\","
                       "\"value\":\"1\"},{\"op\":\"replace\",\"path\":"
                       "\"/metadata/annotations/chrek.io~1a\",\"value\":\"5\"}]",
                       NULL, &err));
    (void)snprintf(text, sizeof(text),
                   "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"%s-1\","
                   "\"annotations\":{\"chrek.io/c\":\"6\"}}}",
                   n.run);
    CHECK_OK(send_text(k, KUBE_APPLY, path_of(&n, 1, "?fieldManager=chrek&force=true"), text, NULL,
                       &err));
    CLEANUP(kube_pod_done) struct kube_pod p = get_pod(k, &n, 1);
    CHECK_STR(kube_pod_annotation(&p, "chrek.io/a"), "5");
    CHECK_STR(kube_pod_annotation(&p, "chrek.io/c"), "6");
    delete_pod(k, &n, 1);
}

static enum rc count_one(void *arg, yyjson_val *object, struct err *err)
{
    (void)object, (void)err;
    ++*(unsigned *)arg;
    return RC_OK;
}

TEST(lists_have_pages_and_selectors)
{
    struct err err = ERR_INIT;
    CLEANUP(kube_closep) struct kube *k = open_server();
    struct names n = names();
    char version[KUBE_VERSION_MAX];
    unsigned found = 0, one = 0, none = 0;
    CLEANUP(mem_freep) char *labels = mem_asprintf("chrek.io/run=%s", n.run);
    CLEANUP(mem_freep) char *name = mem_asprintf("metadata.name=%s-3,spec.nodeName=nowhere", n.run);
    for (unsigned i = 0; i < 7; i++)
        CHECK_OK(make_pod(k, &n, i, &err));
    struct kube_collection c = {.path = PODS, .labels = labels, .page = 2};
    CHECK_OK(kube_list(k, &c, count_one, &found, version, &err));
    c.path = "/api/v1/pods";
    c.fields = name;
    CHECK_OK(kube_list(k, &c, count_one, &one, version, &err));
    c.fields = "spec.nodeName=elsewhere";
    CHECK_OK(kube_list(k, &c, count_one, &none, version, &err));
    CHECK(found == 7 && one == 1 && none == 0);
    for (unsigned i = 0; i < 7; i++)
        delete_pod(k, &n, i);
}

struct seen {
    char text[256];
    unsigned n;
};

static enum rc note(void *arg, enum kube_change change, yyjson_val *object, struct err *err)
{
    struct seen *s = arg;
    size_t len = strlen(s->text);
    const char *name = json_str(yyjson_obj_get(object, "metadata"), "name", "?");
    (void)err;
    (void)snprintf(s->text + len, sizeof(s->text) - len, "%c%c", "+~-"[change],
                   name[strlen(name) - 1]);
    s->n++;
    return RC_OK;
}

/* Changes made before it begins are told, too: from the version of the list on. */
TEST(a_watch_tells_what_has_changed_and_moves_on)
{
    struct err err = ERR_INIT;
    CLEANUP(kube_closep) struct kube *k = open_server();
    struct names n = names();
    char version[KUBE_VERSION_MAX], first[KUBE_VERSION_MAX];
    unsigned found = 0;
    struct seen seen = {.text = ""};
    CLEANUP(mem_freep) char *labels = mem_asprintf("chrek.io/run=%s", n.run);
    const struct kube_collection c = {.path = PODS, .labels = labels, .watch_s = 3};
    const struct kube_watcher w = {.change = note, .arg = &seen};
    CHECK_OK(make_pod(k, &n, 1, &err));
    CHECK_OK(kube_list(k, &c, count_one, &found, version, &err));
    memcpy(first, version, sizeof(first));
    CHECK_OK(make_pod(k, &n, 2, &err));
    CHECK_OK(send_text(k, KUBE_MERGE_PATCH, path_of(&n, 1, ""),
                       "{\"metadata\":{\"annotations\":{\"chrek.io/b\":\"2\"}}}", NULL, &err));
    CHECK_OK(send_text(k, KUBE_MERGE_PATCH, path_of(&n, 2, ""),
                       "{\"metadata\":{\"labels\":{\"chrek.io/run\":\"other\"}}}", NULL, &err));
    CHECK_OK(kube_watch(k, &c, &w, version, &err));
    CHECK_STR(seen.text, "+2~1-2");
    CHECK(strcmp(version, first) != 0);
    seen = (struct seen){.text = ""};
    CHECK_OK(kube_watch(k, &c, &w, version, &err)); /* nothing is told twice */
    CHECK_STR(seen.text, "");
    delete_pod(k, &n, 1);
    delete_pod(k, &n, 2);
}

TEST(an_event_is_found_with_its_pod)
{
    struct err err = ERR_INIT;
    CLEANUP(kube_closep) struct kube *k = open_server();
    struct names n = names();
    char version[KUBE_VERSION_MAX];
    unsigned found = 0;
    CHECK_OK(make_pod(k, &n, 1, &err));
    CLEANUP(kube_pod_done) struct kube_pod p = get_pod(k, &n, 1);
    const struct kube_event e = {.warning = true,
                                 .reason = "Tried",
                                 .message = "a conformance test",
                                 .component = "chrek-agent",
                                 .node = "nowhere",
                                 .name = p.name,
                                 .name_space = p.name_space,
                                 .uid = p.uid};
    CHECK_OK(kube_event_post(k, &e, &err));
    CLEANUP(mem_freep) char *fields = mem_asprintf("involvedObject.uid=%s,reason=Tried", p.uid);
    const struct kube_collection c = {.path = "/api/v1/namespaces/default/events",
                                      .fields = fields};
    CHECK_OK(kube_list(k, &c, count_one, &found, version, &err));
    CHECK_INT(found, 1);
    delete_pod(k, &n, 1);
}

TEST(nobody_gets_in_with_a_wrong_token_or_to_a_stranger)
{
    struct err err = ERR_INIT;
    CLEANUP(kube_config_done) struct kube_config c = {.server = NULL};
    read_config(&c);
    char token[] = "wrong", *cert = c.cert_pem, *key = c.key_pem, *ca = c.ca_pem;
    struct kube_config wrong = {.server = c.server, .ca_pem = ca, .token = token};
    CLEANUP(kube_closep) struct kube *k = NULL;
    CHECK_OK(kube_open(&wrong, &k, &err));
    CHECK_RC(kube_do(k, KUBE_GET, PODS, NULL, NULL, &err), RC_DENIED);
    if (strncmp(c.server, "https:", 6) != 0)
        return;
    struct kube_config strange = {.server = c.server, .cert_pem = cert, .key_pem = key};
    CLEANUP(kube_closep) struct kube *s = NULL;
    CHECK_OK(kube_open(&strange, &s, &err)); /* the machine knows nothing of its CA */
    CHECK_RC(kube_do(s, KUBE_GET, PODS, NULL, NULL, &err), RC_DENIED);
}

#include "base/compiler.h"
#include "codec/json.h"
#include "harness/test.h"
#include "kube/pod.h"

static enum rc parse(const char *text, struct kube_pod *out, struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CHECK(json_parse("it", text, strlen(text), &doc, err) == RC_OK);
    return kube_pod_read(yyjson_doc_get_root(doc), out, err);
}

static const char whole[] =
    "{\"metadata\":{\"name\":\"a\",\"namespace\":\"b\",\"uid\":\"c\",\"resourceVersion\":\"7\","
    "\"labels\":{\"nvidia.com/checkpoint-source\":\"true\",\"app\":\"x\"},"
    "\"annotations\":{\"chrek.io/container\":\"two\",\"huge\":\"...\"}},"
    "\"spec\":{\"nodeName\":\"n\",\"containers\":[{\"name\":\"one\"},{\"name\":\"two\","
    "\"env\":[{\"name\":\"DYN_CHECKPOINT_SIGNAL_FILE\",\"valueFrom\":{}}]}]},"
    "\"status\":{\"phase\":\"Running\",\"podIP\":\"1.2.3.4\",\"conditions\":["
    "{\"type\":\"Initialized\",\"status\":\"False\"},{\"type\":\"Ready\",\"status\":\"True\"}],"
    "\"containerStatuses\":[{\"name\":\"two\",\"containerID\":\"containerd://22\","
    "\"state\":{\"running\":{}}},{\"name\":\"one\",\"state\":{\"waiting\":{}}}]}}";

TEST(a_pod_is_read)
{
    struct err err = ERR_INIT;
    CLEANUP(kube_pod_done) struct kube_pod p = {.name = NULL};
    CHECK_OK(parse(whole, &p, &err));
    CHECK_STR(p.name, "a");
    CHECK_STR(p.name_space, "b");
    CHECK_STR(p.uid, "c");
    CHECK_STR(p.node, "n");
    CHECK_STR(p.ip, "1.2.3.4");
    CHECK(p.running && p.ready && !p.ending);
    CHECK_INT(p.n_containers, 2);
    CHECK(!p.containers[0].id && !p.containers[0].running && !p.containers[0].has_signal);
    CHECK_STR(p.containers[1].id, "containerd://22");
    CHECK(p.containers[1].running && p.containers[1].has_signal);
    CHECK_STR(kube_pod_label(&p, "nvidia.com/checkpoint-source"), "true");
    CHECK_STR(kube_pod_annotation(&p, "chrek.io/container"), "two");
    CHECK(!kube_pod_label(&p, "app") && !kube_pod_annotation(&p, "huge")); /* not kept */
}

TEST(a_pod_that_has_just_been_made_has_little)
{
    struct err err = ERR_INIT;
    CLEANUP(kube_pod_done) struct kube_pod p = {.name = NULL};
    CHECK_OK(parse("{\"metadata\":{\"name\":\"a\",\"namespace\":\"b\",\"uid\":\"c\","
                   "\"deletionTimestamp\":\"2026-01-01T00:00:00Z\"}}",
                   &p, &err));
    CHECK(!p.node && !p.ip && !p.running && !p.ready && p.ending && p.n_containers == 0);
}

TEST(what_is_no_pod_is_refused)
{
    static const char *const bad[] = {
        "{}", "{\"metadata\":[]}", "{\"metadata\":{\"name\":\"a\",\"namespace\":\"b\"}}",
        "{\"metadata\":{\"name\":1,\"namespace\":\"b\",\"uid\":\"c\"}}"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        struct kube_pod p;
        CHECK_RC(parse(bad[i], &p, &err), RC_CORRUPT);
    }
}

#include "agent/pick.h"
#include "base/compiler.h"
#include "codec/json.h"
#include "harness/test.h"

#include <stdio.h>

static struct kube_pod pod(const char *text)
{
    struct err err = ERR_INIT;
    struct kube_pod p;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CHECK_OK(json_parse("it", text, strlen(text), &doc, &err));
    CHECK_OK(kube_pod_read(yyjson_doc_get_root(doc), &p, &err));
    return p;
}

#define META "\"name\":\"a\",\"namespace\":\"b\",\"uid\":\"c\""
#define SOURCE "\"labels\":{\"nvidia.com/checkpoint-source\":\"true\"}"
#define READY "\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]"

TEST(only_ready_pods_of_this_node_that_ask_are_picked)
{
    static const struct {
        const char *text;
        bool want;
    } cases[] = {
        {"{\"metadata\":{" META "," SOURCE "},\"spec\":{\"nodeName\":\"n\"},\"status\":"
         "{\"phase\":\"Running\"," READY "}}",
         true},
        {"{\"metadata\":{" META "},\"spec\":{\"nodeName\":\"n\"},\"status\":"
         "{\"phase\":\"Running\"," READY "}}",
         false},
        {"{\"metadata\":{" META "," SOURCE "},\"spec\":{\"nodeName\":\"m\"},\"status\":"
         "{\"phase\":\"Running\"," READY "}}",
         false},
        {"{\"metadata\":{" META "," SOURCE "},\"spec\":{\"nodeName\":\"n\"},\"status\":"
         "{\"phase\":\"Pending\"," READY "}}",
         false},
        {"{\"metadata\":{" META "," SOURCE "},\"spec\":{\"nodeName\":\"n\"},\"status\":"
         "{\"phase\":\"Running\"}}",
         false},
        {"{\"metadata\":{" META "," SOURCE ",\"deletionTimestamp\":\"x\"},\"spec\":{\"nodeName\":"
         "\"n\"},\"status\":{\"phase\":\"Running\"," READY "}}",
         false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        CLEANUP(kube_pod_done) struct kube_pod p = pod(cases[i].text);
        CHECK(pick_pod(&p, "n") == cases[i].want);
    }
}

TEST(the_container_is_the_named_main_only_or_signalling_one)
{
    static const struct {
        const char *meta, *containers, *want; /* NULL: none */
    } cases[] = {
        {META, "{\"name\":\"x\"}", "x"},
        {META, "{\"name\":\"x\"},{\"name\":\"main\"}", "main"},
        {META, "{\"name\":\"x\"},{\"name\":\"y\"}", NULL},
        {META, "", NULL},
        {META,
         "{\"name\":\"x\"},{\"name\":\"y\",\"env\":[{\"name\":\"DYN_CHECKPOINT_SIGNAL_FILE\"}]}",
         "y"},
        {META,
         "{\"name\":\"x\",\"env\":[{\"name\":\"DYN_CHECKPOINT_SIGNAL_FILE\"}]},"
         "{\"name\":\"y\",\"env\":[{\"name\":\"DYN_CHECKPOINT_SIGNAL_FILE\"}]}",
         NULL},
        {META ",\"annotations\":{\"chrek.io/container\":\"x\"}",
         "{\"name\":\"x\"},{\"name\":\"main\"}", "x"},
        {META ",\"annotations\":{\"chrek.io/container\":\"z\"}", "{\"name\":\"main\"}", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        char text[1024];
        const struct kube_pod_container *c = NULL;
        (void)snprintf(text, sizeof(text), "{\"metadata\":{%s},\"spec\":{\"containers\":[%s]}}",
                       cases[i].meta, cases[i].containers);
        CLEANUP(kube_pod_done) struct kube_pod p = pod(text);
        CHECK_RC(pick_container(&p, &c, &err), cases[i].want ? RC_OK : RC_INVALID);
        if (cases[i].want)
            CHECK_STR(c->name, cases[i].want);
        else
            CHECK(strstr(err.msg, "chrek.io/container"));
    }
}

/* A container of the runtime's with these variables. */
static struct cri_container container(const char *env)
{
    struct err err = ERR_INIT;
    struct cri_container c = {.id = NULL};
    char text[512];
    (void)snprintf(text, sizeof(text), "{\"runtimeSpec\":{\"process\":{\"env\":[%s]}}}", env);
    CHECK_OK(json_parse("it", text, strlen(text), &c.info, &err));
    c.spec = yyjson_obj_get(yyjson_doc_get_root(c.info), "runtimeSpec");
    return c;
}

TEST(the_id_is_the_labels_else_the_environments)
{
    static const struct {
        const char *label, *env, *want; /* NULL: none */
    } cases[] = {
        {"l1", "\"DYN_CHECKPOINT_HASH=e1\"", "l1"},
        {"", "\"DYN_CHECKPOINT_HASH=e0\",\"DYN_CHECKPOINT_HASH=e1\"", "e1"},
        {"", "\"DYN_CHECKPOINT_LOCATION=/checkpoints/abc\"", "abc"},
        {"", "\"DYN_CHECKPOINT_LOCATION=abc\"", "abc"},
        {"", "\"DYN_CHECKPOINT_LOCATION=/checkpoints/\"", NULL},
        {"", "\"DYN_CHECKPOINT_HASH=../x\"", NULL},
        {"", "\"DYN_CHECKPOINT_HASHES=x\"", NULL},
        {"", "", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        char text[512];
        const char *id = NULL;
        (void)snprintf(text, sizeof(text),
                       "{\"metadata\":{" META
                       ",\"labels\":{\"nvidia.com/checkpoint-hash\":\"%s\"}}}",
                       cases[i].label);
        CLEANUP(kube_pod_done) struct kube_pod p = pod(text);
        CLEANUP(cri_container_done) struct cri_container c = container(cases[i].env);
        CHECK_RC(pick_id(&p, &c, &id, &err), cases[i].want ? RC_OK : RC_INVALID);
        if (cases[i].want)
            CHECK_STR(id, cases[i].want);
    }
}

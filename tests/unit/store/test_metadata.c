#include "base/compiler.h"
#include "base/mem.h"
#include "harness/test.h"
#include "store/metadata.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct metadata sample(void)
{
    struct metadata m = {.checkpoint_id = mem_strdup("abc"),
                         .created_at = mem_strdup("2026-01-31T00:00:00Z"),
                         .source_node = mem_strdup("node \"1\""),
                         .pid = 4711,
                         .tcp_close = true,
                         .ours = true,
                         .kernel = mem_strdup("6.18"),
                         .notify = mem_strdup("signal:USR1"),
                         .generation = 3,
                         .root_pid = 301,
                         .has_shm = true,
                         .freeze_ns = UINT64_MAX};
    m.command = mem_zalloc(3 * sizeof(char *));
    m.command[0] = mem_strdup("sh");
    m.command[1] = mem_strdup("-c\n\t\"");
    m.streams[0] = METADATA_STREAM_PIPE;
    m.stream_key[0] = mem_strdup("pipe:[1]");
    m.streams[1] = METADATA_STREAM_TTY;
    m.labels = mem_zalloc(sizeof(*m.labels));
    m.labels[m.n_labels++] = (struct metadata_label){mem_strdup("k"), mem_strdup("v")};
    return m;
}

TEST(what_is_written_is_read_back)
{
    struct err err = ERR_INIT;
    CLEANUP(metadata_done) struct metadata m = sample();
    CLEANUP(metadata_done) struct metadata back = {0};
    CLEANUP(buf_done) struct buf one = BUF_INIT;
    CLEANUP(buf_done) struct buf two = BUF_INIT;
    metadata_format(&m, &one);
    CHECK_OK(metadata_parse(buf_str(&one), one.len, &back, &err));
    metadata_format(&back, &two);
    CHECK_STR(buf_str(&one), buf_str(&two));
    CHECK(back.freeze_ns == UINT64_MAX && back.streams[1] == METADATA_STREAM_TTY);
    CHECK_STR(back.command[1], "-c\n\t\"");
}

TEST(gpu_state_is_read_back_and_asks_for_a_newer_reader)
{
    struct err err = ERR_INIT;
    CLEANUP(metadata_done) struct metadata m = sample();
    CLEANUP(metadata_done) struct metadata back = {0};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    m.gpu = mem_zalloc(sizeof(*m.gpu));
    *m.gpu = (struct gpu_facts){.driver = "580.1", .cuda = 13000, .n_devices = 1};
    m.gpu->device[0] =
        (struct gpu_device){.uuid = "GPU-a0000000-1111-2222-3333-444444444444", .name = "Model X"};
    m.gpu_pids = mem_zalloc(2 * sizeof(*m.gpu_pids));
    m.gpu_pids[m.n_gpu_pids++] = 301;
    m.gpu_pids[m.n_gpu_pids++] = 77;
    metadata_format(&m, &text);
    CHECK_OK(metadata_parse(buf_str(&text), text.len, &back, &err));
    CHECK_INT(back.format, 4);
    CHECK(back.gpu && back.n_gpu_pids == 2 && back.gpu_pids[1] == 77);
    CHECK_STR(back.gpu->device[0].name, "Model X");
    CHECK_STR(back.gpu->driver, "580.1");
}

TEST(gpu_state_of_nobody_is_corrupt)
{
    static const char *const bad[] = {
        "{\"chrek\": {\"format\": 3, \"gpu\": {}}}",
        "{\"chrek\": {\"format\": 3, \"gpu\": {\"processes\": [0]}}}",
        "{\"chrek\": {\"format\": 3, \"gpu\": {\"processes\": [\"x\"]}}}",
        "{\"chrek\": {\"format\": 3, \"gpu\": {\"processes\": [1], \"devices\": [{}]}}}"};
    struct err err = ERR_INIT;
    CLEANUP(metadata_done) struct metadata m = {0};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_RC(metadata_parse(bad[i], strlen(bad[i]), &m, &err), RC_CORRUPT);
}

/* The contract fixes names, order and shape of the first part. */
TEST(the_contracts_keys_come_first_in_order)
{
    static const char *const keys[] = {"checkpoint_id",   "created_at",
                                       "source_node",     "container_id",
                                       "pod_name",        "pod_namespace",
                                       "image",           "pid",
                                       "has_rootfs_diff", "has_deleted_files",
                                       "mounts",          "namespaces",
                                       "criu_options",    "chrek"};
    CLEANUP(metadata_done) struct metadata m = sample();
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    metadata_format(&m, &text);
    const char *at = buf_str(&text);
    CHECK(strncmp(at, "{\n  \"checkpoint_id\": \"abc\",\n", 28) == 0);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        char key[64];
        (void)snprintf(key, sizeof(key), "\n  \"%s\":", keys[i]);
        at = strstr(at, key);
        CHECK(at);
    }
    CHECK(text.data[text.len - 1] == '}');
}

TEST(nonsense_is_refused_whole)
{
    static const char *const bad[] = {
        "",
        "{",
        "[]",
        "{\"checkpoint_id\": 5}",
        "{\"chrek\": {}}",
        "{\"chrek\": {\"format\": 1, \"command\": [1]}}",
        "{\"chrek\": {\"format\": 1, \"streams\": [{\"kind\": \"x\"}]}}",
        "{\"chrek\": {\"format\": 1, \"streams\": [{\"kind\": \"pipe\"}]}}"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        struct metadata m = {.pid = 77};
        CHECK_RC(metadata_parse(bad[i], strlen(bad[i]), &m, &err), RC_CORRUPT);
        CHECK(m.pid == 77); /* untouched */
    }
}

TEST(a_member_of_another_kind_is_damage)
{
    static const struct {
        const char *text, *said;
    } bad[] = {
        {"[]", "no JSON object"},
        {"{\"pid\":\"4711\"}", "'pid' is not a number"},
        {"{\"has_rootfs_diff\":1}", "'has_rootfs_diff' is not true or false"},
        {"{\"mounts\":{}}", "'mounts' is not a list of objects"},
        {"{\"mounts\":[7]}", "'mounts' is not a list of objects"},
        {"{\"masked_paths\":[\"/a\",null]}", "'masked_paths' is not a list of strings"},
        {"{\"criu_options\":[]}", "'criu_options' is not an object"},
        {"{\"criu_options\":{\"tcp_close\":\"yes\"}}", "'tcp_close' is not true or false"},
        {"{\"chrek\":7}", "'chrek' is not an object"},
        {"{\"chrek\":{\"format\":1,\"generation\":-1}}", "'generation' is not a number that"},
        {"{\"chrek\":{\"format\":1,\"packed\":\"no\"}}", "'packed' is not true or false"},
        {"{\"chrek\":{\"format\":1,\"command\":\"ls\"}}", "'command' is not a list of strings"},
        {"{\"chrek\":{\"format\":1,\"streams\":[1,2,3]}}", "'streams' is not a list of objects"},
        {"{\"chrek\":{\"format\":1,\"labels\":{\"a\":1}}}", "'labels' is not an object of str"},
        {"{\"chrek\":{\"format\":1,\"timings_ns\":{\"a\":\"1\"}}}", "'timings_ns' is not an"},
        {"{\"chrek\":{\"format\":1,\"freeze_ns\":1.5}}", "'freeze_ns' is not a number that"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        struct metadata m = {.pid = 77};
        CHECK_RC(metadata_parse(bad[i].text, strlen(bad[i].text), &m, &err), RC_CORRUPT);
        if (!strstr(err.msg, bad[i].said))
            test_fail(__FILE__, __LINE__, "%s: %s", bad[i].text, err.msg);
        CHECK(m.pid == 77); /* untouched */
    }
}

TEST(null_is_absence)
{
    struct err err = ERR_INIT;
    CLEANUP(metadata_done) struct metadata m = {0};
    static const char text[] =
        "{\"pid\":null,\"mounts\":null,\"criu_options\":null,\"chrek\":null}";
    CHECK_OK(metadata_parse(text, sizeof(text) - 1, &m, &err));
    CHECK(!m.ours && m.pid == 0);
}

TEST(what_is_readable_of_an_encrypted_one_tells_nothing_of_the_program)
{
    struct err err = ERR_INIT;
    CLEANUP(metadata_done) struct metadata m = sample();
    CLEANUP(metadata_done) struct metadata back = {0};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    static const char *const secrets[] = {"\"command\"", "signal:USR1", "pipe:[1]", "labels",
                                          "tty"};
    m.key = mem_strdup("00112233445566778899aabbccddeeff");
    m.instance = mem_strdup("ffeeddccbbaa99887766554433221100");
    m.name = mem_strdup("box-name");
    m.cwd = mem_strdup("/home/somebody");
    metadata_format_bare(&m, &text);
    for (size_t i = 0; i < ARRAY_LEN(secrets); i++)
        CHECK(!strstr(buf_str(&text), secrets[i]));
    CHECK(!strstr(buf_str(&text), "box-name") && !strstr(buf_str(&text), "somebody"));
    CHECK_OK(metadata_parse(buf_str(&text), text.len, &back, &err));
    CHECK(!back.command && !back.name && !back.n_labels && back.format == 3);
    CHECK_STR(back.key, m.key);
    CHECK_STR(back.instance, m.instance);
    CHECK_STR(back.kernel, "6.18");
    CHECK(back.pid == 4711 && back.freeze_ns == UINT64_MAX);
}

#include "codec/identity.h"
#include "harness/test.h"

#include <string.h>

/* clang-format off */
static const struct identity_parameter
    utilization[] = {{"gpu_memory_utilization", "0.9"}},
    prefill[] = {{"enableChunkedPrefill", "true"}},
    quantized[] = {{"quantization", "awq"}, {"enableChunkedPrefill", "true"}},
    cases[] = {{"a", "2"}, {"B", "1"}};

static const struct {
    struct identity identity;
    const char *json, *hash;
} vectors[] = {
    {{.model = "meta-llama/Llama-2-7b-hf", .backend_framework = "vllm"},
     "{\"model\":\"meta-llama/Llama-2-7b-hf\",\"backendFramework\":\"vllm\","
     "\"tensorParallelSize\":1,\"pipelineParallelSize\":1}", "96429b2725761a09"},
    {{.model = "meta-llama/Llama-2-13b-hf", .backend_framework = "sglang",
      .dynamo_version = "0.4.2", .tensor_parallel_size = 2, .pipeline_parallel_size = 1,
      .dtype = "float16", .max_model_len = 4096, .parameters = utilization, .n_parameters = 1},
     "{\"model\":\"meta-llama/Llama-2-13b-hf\",\"backendFramework\":\"sglang\","
     "\"dynamoVersion\":\"0.4.2\",\"tensorParallelSize\":2,\"pipelineParallelSize\":1,"
     "\"dtype\":\"float16\",\"maxModelLen\":4096,"
     "\"extraParameters\":{\"gpu_memory_utilization\":\"0.9\"}}", "f4ba65bccbb8e4fb"},
    {{.model = "meta-llama/Llama-3-8B", .backend_framework = "vllm", .dtype = "bfloat16"},
     "{\"model\":\"meta-llama/Llama-3-8B\",\"backendFramework\":\"vllm\","
     "\"tensorParallelSize\":1,\"pipelineParallelSize\":1,\"dtype\":\"bfloat16\"}",
     "5941a4cb3c363457"},
    {{.model = "meta-llama/Llama-3-8B", .backend_framework = "vllm"},
     "{\"model\":\"meta-llama/Llama-3-8B\",\"backendFramework\":\"vllm\","
     "\"tensorParallelSize\":1,\"pipelineParallelSize\":1}", "4a5f6cbea582b088"},
    {{.model = "meta-llama/Llama-3-8B", .backend_framework = "vllm", .dynamo_version = "0.9.0",
      .dtype = "bfloat16", .max_model_len = 8192, .parameters = quantized, .n_parameters = 2},
     "{\"model\":\"meta-llama/Llama-3-8B\",\"backendFramework\":\"vllm\","
     "\"dynamoVersion\":\"0.9.0\",\"tensorParallelSize\":1,\"pipelineParallelSize\":1,"
     "\"dtype\":\"bfloat16\",\"maxModelLen\":8192,"
     "\"extraParameters\":{\"enableChunkedPrefill\":\"true\",\"quantization\":\"awq\"}}",
     "a6fcc8309a7466a8"},
    {{.model = "meta-llama/Meta-Llama-3-8B-Instruct", .backend_framework = "vllm",
      .dtype = "bfloat16"},
     "{\"model\":\"meta-llama/Meta-Llama-3-8B-Instruct\",\"backendFramework\":\"vllm\","
     "\"tensorParallelSize\":1,\"pipelineParallelSize\":1,\"dtype\":\"bfloat16\"}",
     "1f355de0401db0be"},
    {{.model = "Qwen/Qwen3-0.6B", .backend_framework = "vllm"},
     "{\"model\":\"Qwen/Qwen3-0.6B\",\"backendFramework\":\"vllm\","
     "\"tensorParallelSize\":1,\"pipelineParallelSize\":1}", "73e74442beb109ed"},
    {{.model = "Qwen/Qwen3-0.6B", .backend_framework = "vllm", .dtype = "bfloat16",
      .max_model_len = 8192, .parameters = prefill, .n_parameters = 1},
     "{\"model\":\"Qwen/Qwen3-0.6B\",\"backendFramework\":\"vllm\","
     "\"tensorParallelSize\":1,\"pipelineParallelSize\":1,\"dtype\":\"bfloat16\","
     "\"maxModelLen\":8192,\"extraParameters\":{\"enableChunkedPrefill\":\"true\"}}",
     "319e212e1edf65e2"},
    {{.model = "a<b>&c", .backend_framework = "vllm", .parameters = cases, .n_parameters = 2},
     "{\"model\":\"a\\u003cb\\u003e\\u0026c\",\"backendFramework\":\"vllm\","
     "\"tensorParallelSize\":1,\"pipelineParallelSize\":1,"
     "\"extraParameters\":{\"B\":\"1\",\"a\":\"2\"}}", "46dd5dc5495c1bc1"},
    {{.model = "q\"\\/\n\t\b\f\x01\xc3\xa9\xe2\x80\xa8", .backend_framework = "trtllm"},
     "{\"model\":\"q\\\"\\\\/\\n\\t\\b\\f\\u0001\xc3\xa9\\u2028\",\"backendFramework\":\"trtllm\","
     "\"tensorParallelSize\":1,\"pipelineParallelSize\":1}", "79adfab2a6b0e8ca"},
};
/* clang-format on */

TEST(the_contract_s_vectors)
{
    struct err err = ERR_INIT;
    for (size_t i = 0; i < ARRAY_LEN(vectors); i++) {
        CLEANUP(buf_done) struct buf json = BUF_INIT;
        char hash[IDENTITY_HASH_LEN + 1];
        CHECK_OK(identity_format(&vectors[i].identity, &json, &err));
        CHECK_STR(buf_str(&json), vectors[i].json);
        CHECK_OK(identity_hash(&vectors[i].identity, hash, &err));
        CHECK_STR(hash, vectors[i].hash);
    }
}

static bool same(const struct identity *a, const struct identity *b)
{
    struct err err = ERR_INIT;
    char x[IDENTITY_HASH_LEN + 1], y[IDENTITY_HASH_LEN + 1];
    CHECK_OK(identity_hash(a, x, &err));
    CHECK_OK(identity_hash(b, y, &err));
    return strcmp(x, y) == 0;
}

TEST(what_is_unset_counts_as_its_default)
{
    static const struct identity plain = {.model = "m", .backend_framework = "vllm"},
                                 spelled = {.model = "m",
                                            .backend_framework = "vllm",
                                            .dynamo_version = "",
                                            .tensor_parallel_size = 1,
                                            .pipeline_parallel_size = 1,
                                            .dtype = "",
                                            .parameters = cases},
                                 two = {.model = "m",
                                        .backend_framework = "vllm",
                                        .tensor_parallel_size = 2},
                                 none = {.model = NULL}, empty = {.model = ""};
    CHECK(same(&plain, &spelled));
    CHECK(!same(&plain, &two));
    CHECK(same(&none, &empty));
}

TEST(the_order_of_parameters_does_not_count_but_their_values_do)
{
    static const struct identity_parameter forth[] = {{"a", "1"}, {"ab", "2"}, {"\xc3\xa9", "3"}},
                                           back[] = {{"\xc3\xa9", "3"}, {"ab", "2"}, {"a", "1"}},
                                           other[] = {{"a", "1"}, {"ab", "2"}, {"\xc3\xa9", "4"}};
    static const struct identity x = {.model = "m", .parameters = forth, .n_parameters = 3},
                                 y = {.model = "m", .parameters = back, .n_parameters = 3},
                                 z = {.model = "m", .parameters = other, .n_parameters = 3};
    CHECK(same(&x, &y));
    CHECK(!same(&x, &z));
}

TEST(every_text_counts_as_it_is)
{
    static const struct identity all[] = {
        {.model = "m", .backend_framework = "vllm"},
        {.model = "M", .backend_framework = "vllm"},
        {.model = "m ", .backend_framework = "vllm"},
        {.model = "m", .backend_framework = "sglang"},
        {.model = "m", .backend_framework = "vllm", .dtype = "x"}};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        for (size_t j = 0; j < i; j++)
            CHECK(!same(&all[i], &all[j]));
}

TEST(only_what_the_contract_names_is_escaped)
{
    static const struct identity i = {.model = "/\x7f'\xef\xbf\xbd\xe2\x80\xa9\xe2\x80\xa7\r\x1f"};
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf json = BUF_INIT;
    CHECK_OK(identity_format(&i, &json, &err));
    CHECK(strncmp(buf_str(&json),
                  "{\"model\":\"/\x7f'\xef\xbf\xbd\\u2029\xe2\x80\xa7\\r\\u001f\","
                  "\"backendFramework\":\"\",",
                  49) == 0);
}

TEST(what_cannot_be_an_identity_leaves_the_buffer_alone)
{
    static const struct identity_parameter twice[] = {{"a", "1"}, {"b", "2"}, {"a", "1"}},
                                           broken[] = {{"a", "\xff"}}, bad_key[] = {{"\xc3", "1"}};
    static const struct identity bad[] = {{.model = "\xff"},
                                          {.backend_framework = "a\xc3"},
                                          {.dynamo_version = "\xed\xa0\x80"},
                                          {.dtype = "\xc0\x80"},
                                          {.parameters = broken, .n_parameters = 1},
                                          {.parameters = bad_key, .n_parameters = 1},
                                          {.parameters = twice, .n_parameters = 3}};
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf json = {.max = 100};
    buf_adds(&json, "before");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char hash[IDENTITY_HASH_LEN + 1] = "untouched";
        CHECK_RC(identity_format(&bad[i], &json, &err), RC_INVALID);
        CHECK_STR(buf_str(&json), "before");
        CHECK_RC(identity_hash(&bad[i], hash, &err), RC_INVALID);
        CHECK_STR(hash, "untouched");
    }
    CHECK_STR(err.msg, "parameter 'a' of an identity is there twice");
    static const struct identity long_one = {
        .model = "a model whose name does not fit what the buffer of the caller may still take"};
    CHECK_RC(identity_format(&long_one, &json, &err), RC_TOO_BIG);
    CHECK_STR(buf_str(&json), "before");
    CHECK(!json.overflowed);
}

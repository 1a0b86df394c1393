#include "base/buf.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "codec/yaml.h"
#include "harness/test.h"

#include <stdlib.h>

static char *convert(const char *text)
{
    struct err err = ERR_INIT;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CHECK_OK(yaml_parse("it", text, strlen(text), &doc, &err));
    char *json = yyjson_write(doc, 0, NULL);
    CHECK(json);
    return json;
}

TEST(what_people_write_becomes_what_machines_read)
{
    static const struct {
        const char *yaml, *json;
    } cases[] = {
        {"a: 1\nb: [x, 'y', \"z\"]\n", "{\"a\":1,\"b\":[\"x\",\"y\",\"z\"]}"},
        {"a:\n  b:\n  - c: d\n    e: ''\n", "{\"a\":{\"b\":[{\"c\":\"d\",\"e\":\"\"}]}}"},
        {"{\"json\": [true, null, -3]}", "{\"json\":[true,null,-3]}"},
        {"a: ~\nb: null\nc:\nd: 'null'\n", "{\"a\":null,\"b\":null,\"c\":null,\"d\":\"null\"}"},
        {"a: 0x10\nb: 1.5\nc: -5-\nd: 99999999999999999999\ne: yes\n",
         "{\"a\":\"0x10\",\"b\":\"1.5\",\"c\":\"-5-\",\"d\":\"99999999999999999999\",\"e\":"
         "\"yes\"}"},
        {"a: |\n  two\n  lines\nb: &x [1]\nc: *x\n",
         "{\"a\":\"two\\nlines\\n\",\"b\":[1],\"c\":[1]}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        CLEANUP(mem_freep) char *json = convert(cases[i].yaml);
        CHECK_STR(json, cases[i].json);
    }
}

TEST(what_is_no_yaml_is_refused_with_its_line)
{
    struct err err = ERR_INIT;
    yyjson_doc *doc = NULL;
    CHECK_RC(yaml_parse("it", "a: 1\nb: [", 9, &doc, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "line"));
    CHECK_RC(yaml_parse("it", "", 0, &doc, &err), RC_CORRUPT);
    CHECK_RC(yaml_parse("it", "? [a]\n: b\n", 10, &doc, &err), RC_CORRUPT);
}

TEST(aliases_that_multiply_are_bounded)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    yyjson_doc *doc = NULL;
    buf_adds(&text, "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for (int i = 1; i < 10; i++)
        buf_addf(&text, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n",
                 i, i, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1);
    CHECK_RC(yaml_parse("it", text.data, text.len, &doc, &err), RC_TOO_BIG);
    const char *loop = "a: &a [*a]\n"; /* it holds itself */
    CHECK_RC(yaml_parse("it", loop, strlen(loop), &doc, &err), RC_TOO_BIG);
}

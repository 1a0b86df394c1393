#include "agent/rescue.h"
#include "base/compiler.h"
#include "codec/json.h"
#include "harness/test.h"

TEST(a_request_goes_over_the_line_as_it_is)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    struct rescue got;
    const struct rescue r = {.store = "/s \"x\"", .id = "abc", .name_space = "ns", .timeout_ns = 7};
    rescue_format(&r, &text);
    CHECK_OK(rescue_parse(text.data, text.len, &doc, &got, &err));
    CHECK_STR(got.store, r.store);
    CHECK_STR(got.id, "abc");
    CHECK_STR(got.name_space, "ns");
    CHECK(!got.criu && got.timeout_ns == 7);
}

TEST(what_is_no_request_is_refused)
{
    static const char *const bad[] = {"", "{}", "{\"store\":\"s\",\"id\":\"i\"}"};
    struct err err = ERR_INIT;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CLEANUP(json_docp) yyjson_doc *doc = NULL;
        struct rescue got;
        CHECK_RC(rescue_parse(bad[i], strlen(bad[i]), &doc, &got, &err), RC_CORRUPT);
    }
}

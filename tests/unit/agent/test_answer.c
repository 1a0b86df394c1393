#include "agent/answer.h"
#include "base/compiler.h"
#include "codec/json.h"
#include "harness/test.h"

#include <string.h>

static enum rc back(enum rc rc, const char *why, yyjson_doc **doc, struct err *err)
{
    struct err of = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (rc)
        (void)err_set(&of, rc, "%s", why);
    CLEANUP(json_mut_docp) yyjson_mut_doc *answer = answer_new(rc, &of);
    (void)yyjson_mut_obj_add_uint(answer, yyjson_mut_doc_get_root(answer), "n", 7);
    json_write(answer, &text);
    return answer_parse(&text, doc, err);
}

TEST(a_failure_comes_back_with_its_code_reason_and_the_rest)
{
    struct err err = ERR_INIT;
    CLEANUP(json_docp) yyjson_doc *bad = NULL;
    CLEANUP(json_docp) yyjson_doc *good = NULL;
    CHECK_OK(back(RC_OK, NULL, &good, &err));
    CHECK_INT(json_u64(yyjson_doc_get_root(good), "n", 0), 7);
    CHECK_RC(back(RC_CONFLICT, "\"taken\"", &bad, &err), RC_CONFLICT);
    CHECK_STR(err.msg, "\"taken\"");
    CHECK_INT(json_u64(yyjson_doc_get_root(bad), "n", 0), 7);
}

TEST(what_is_no_answer_is_refused)
{
    static const char *const texts[] = {"", "{", "[]", "{}", "{\"rc\": 4711}", "{\"rc\": \"0\"}"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct err err = ERR_INIT;
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        yyjson_doc *doc = NULL;
        buf_adds(&text, texts[i]);
        CHECK_RC(answer_parse(&text, &doc, &err), RC_CORRUPT);
        CHECK(!doc);
    }
}

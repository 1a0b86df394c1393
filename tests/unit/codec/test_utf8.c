#include "base/compiler.h"
#include "codec/json.h"
#include "codec/utf8.h"
#include "harness/test.h"

#define BAD "\xef\xbf\xbd"

static void check_clean(const char *text, const char *want)
{
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    utf8_add(&out, text, strlen(text));
    CHECK_STR(buf_str(&out), want);
}

TEST(valid_text_stays_as_it_is)
{
    check_clean("", "");
    check_clean("plain", "plain");
    check_clean("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80");
    check_clean("\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf",
                "\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf");
}

TEST(bytes_of_no_character_are_replaced_one_by_one)
{
    check_clean("a\xff"
                "b",
                "a" BAD "b");
    check_clean("\x80\xbf", BAD BAD);
    check_clean("\xc0\x80", BAD BAD);         /* overlong */
    check_clean("\xe0\x9f\xbf", BAD BAD BAD); /* overlong */
    check_clean("\xed\xa0\x80", BAD BAD BAD); /* surrogate */
    check_clean("\xf4\x90\x80\x80", BAD BAD BAD BAD);
    check_clean("\xe2\x82", BAD BAD); /* cut */
    check_clean("\xf0\x9f\x98"
                "x",
                BAD BAD BAD "x");
}

TEST(nothing_is_read_behind_the_end)
{
    CHECK_INT(utf8_len("\xe2\x82\xac", 2), 0);
    CHECK_INT(utf8_len("\xe2\x82\xac", 3), 3);
    CHECK_INT(utf8_len("\xc3\xa9", 1), 0);
    CHECK_INT(utf8_len("\0", 1), 1);
}

TEST(a_document_of_any_bytes_is_written_as_valid_json)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    CLEANUP(json_docp) yyjson_doc *back = NULL;
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    CHECK(yyjson_mut_obj_add_str(doc, root, "k", "a\xff\"\n"));
    json_write(doc, &out);
    CHECK_OK(json_parse("it", buf_str(&out), out.len, &back, &err));
    CHECK_STR(json_str(yyjson_doc_get_root(back), "k", ""), "a" BAD "\"\n");
}

#include "codec/base64.h"
#include "harness/test.h"

static const char *const known[][2] = {
    {"", ""},        {"f", "Zg=="},        {"fo", "Zm8="},
    {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"\xff\xfe\xfb", "//77"}};

TEST(known_texts_both_ways)
{
    struct err err = ERR_INIT;
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        CLEANUP(buf_done) struct buf back = BUF_INIT;
        base64_format(known[i][0], strlen(known[i][0]), &text);
        CHECK_STR(buf_str(&text), known[i][1]);
        CHECK_OK(base64_parse(known[i][1], strlen(known[i][1]), &back, &err));
        CHECK_STR(buf_str(&back), known[i][0]);
    }
}

TEST(the_alphabet_of_urls_and_missing_padding_are_read)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf back = BUF_INIT;
    CHECK_OK(base64_parse("__77", 4, &back, &err));
    CHECK_OK(base64_parse("Zm8", 3, &back, &err));
    CHECK_STR(buf_str(&back), "\xff\xfe\xfb"
                              "fo");
}

TEST(nonsense_is_refused_and_leaves_nothing)
{
    struct err err = ERR_INIT;
    static const char *const bad[] = {"Z", "Zm9vY", "Zm 8", "Zm8*",
                                      "=", "====",  "Z===", "Zg==Zg=="};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CLEANUP(buf_done) struct buf back = BUF_INIT;
        buf_adds(&back, "x");
        CHECK_RC(base64_parse(bad[i], strlen(bad[i]), &back, &err), RC_INVALID);
        CHECK_STR(buf_str(&back), "x");
    }
    struct buf small = {.max = 2};
    CHECK_RC(base64_parse("Zm9v", 4, &small, &err), RC_TOO_BIG);
    buf_done(&small);
}

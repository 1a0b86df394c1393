#include "base/compiler.h"
#include "harness/test.h"
#include "store/done.h"

#include <stdio.h>
#include <string.h>

/* The text before the time, after which 30 characters and the rest follow. */
static void check_text(const struct done *d, const char *before, const char *after)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    int year = 0, ns = 0, end = 0;
    done_format(d, &text);
    CHECK(strncmp(buf_str(&text), before, strlen(before)) == 0);
    const char *time = buf_str(&text) + strlen(before);
    CHECK(sscanf(time, "%4d-%*2d-%*2dT%*2d:%*2d:%*2d.%9dZ%n", &year, &ns, &end) == 2);
    CHECK_INT(end, 30);
    CHECK(year > 2000);
    CHECK_STR(time + end, after);
}

TEST(a_marker_has_the_contracts_keys_in_order_and_no_newline_at_its_end)
{
    const struct done good = {.checkpoint_id = "abc", .checkpoint_path = "/c/abc", .success = true};
    check_text(&good,
               "{\n  \"checkpoint_id\": \"abc\",\n  \"checkpoint_path\": \"/c/abc\",\n"
               "  \"timestamp\": \"",
               "\",\n  \"success\": true\n}");
    const struct done bad = {
        .checkpoint_id = "abc", .checkpoint_path = "", .error = "no \"space\""};
    check_text(
        &bad, "{\n  \"checkpoint_id\": \"abc\",\n  \"checkpoint_path\": \"\",\n  \"timestamp\": \"",
        "\",\n  \"success\": false,\n  \"error\": \"no \\\"space\\\"\"\n}");
}

TEST(only_a_marker_that_says_success_counts)
{
    static const struct {
        const char *text;
        enum rc rc;
    } cases[] = {{"{\"success\": true}", RC_OK},
                 {"{\"checkpoint_id\": \"x\", \"success\": true, \"later\": []}", RC_OK},
                 {"{\"success\": false, \"error\": \"why\"}", RC_INVALID},
                 {"{\"success\": \"true\"}", RC_CORRUPT},
                 {"{\"success\": 1}", RC_CORRUPT},
                 {"{}", RC_CORRUPT},
                 {"[true]", RC_CORRUPT},
                 {"2026-01-01T00:00:00Z", RC_CORRUPT},
                 {"{\"success\": true", RC_CORRUPT},
                 {"", RC_CORRUPT}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        CHECK_RC(done_check(cases[i].text, strlen(cases[i].text), &err), cases[i].rc);
    }
    struct err err = ERR_INIT;
    (void)!done_check(cases[2].text, strlen(cases[2].text), &err);
    CHECK(strstr(err.msg, "why"));
}

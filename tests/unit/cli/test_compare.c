#include "base/compiler.h"
#include "cli/compare.h"
#include "harness/test.h"

#include <stdlib.h>

static void note(void *arg, const char *path, yyjson_val *a, yyjson_val *b)
{
    char *left = a ? yyjson_val_write(a, 0, NULL) : NULL;
    char *right = b ? yyjson_val_write(b, 0, NULL) : NULL;
    buf_addf(arg, "%s: %s -> %s\n", path, left ? left : "-", right ? right : "-");
    free(left);
    free(right);
}

static void check(const char *a, const char *b, const char *want)
{
    static const char *const skip[] = {"id", "host.name", NULL};
    CLEANUP(buf_done) struct buf found = BUF_INIT;
    CLEANUP(json_docp) yyjson_doc *left = yyjson_read(a, strlen(a), 0);
    CLEANUP(json_docp) yyjson_doc *right = yyjson_read(b, strlen(b), 0);
    CHECK(left && right);
    compare_values(yyjson_doc_get_root(left), yyjson_doc_get_root(right), skip, note, &found);
    CHECK_STR(buf_str(&found), want);
}

TEST(equal_values_have_no_differences)
{
    check("{}", "{}", "");
    check("{\"a\":[1,{\"pid\":2}],\"b\":{\"c\":null}}",
          "{\"b\":{\"c\":null},\"a\":[1,{\"pid\":2}]}", "");
}

TEST(members_are_matched_by_name)
{
    check("{\"a\":1,\"b\":2}", "{\"b\":3,\"c\":4}", "a: 1 -> -\nb: 2 -> 3\nc: - -> 4\n");
    check("{\"a\":{\"b\":1}}", "{\"a\":{\"b\":\"x\"}}", "a.b: 1 -> \"x\"\n");
}

TEST(elements_are_matched_by_what_tells_them_apart)
{
    check("{\"p\":[{\"pid\":1,\"n\":1},{\"pid\":2}]}", "{\"p\":[{\"pid\":3},{\"pid\":1,\"n\":2}]}",
          "p[pid=1].n: 1 -> 2\np[pid=2]: {\"pid\":2} -> -\np[pid=3]: - -> {\"pid\":3}\n");
    check("{\"p\":[]}", "{\"p\":[{\"name\":\"x\"}]}", "p[name=x]: - -> {\"name\":\"x\"}\n");
}

TEST(other_arrays_are_compared_as_a_whole)
{
    check("{\"c\":[\"a\",\"b\"]}", "{\"c\":[\"a\"]}", "c: [\"a\",\"b\"] -> [\"a\"]\n");
}

TEST(skipped_paths_are_not_looked_at)
{
    check("{\"id\":1,\"host\":{\"name\":1,\"kernel\":1}}",
          "{\"id\":2,\"host\":{\"name\":2,\"kernel\":2}}", "host.kernel: 1 -> 2\n");
}

TEST(what_is_nested_too_deep_is_compared_as_a_whole)
{
    CLEANUP(buf_done) struct buf a = BUF_INIT;
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    CLEANUP(json_docp) yyjson_doc *left = NULL, *right = NULL;
    CLEANUP(buf_done) struct buf found = BUF_INIT;
    for (int i = 0; i < 100; i++) {
        buf_adds(&a, "{\"a\":");
        buf_adds(&b, "{\"a\":");
    }
    buf_adds(&a, "1");
    buf_adds(&b, "2");
    for (int i = 0; i < 100; i++) {
        buf_adds(&a, "}");
        buf_adds(&b, "}");
    }
    left = yyjson_read(a.data, a.len, 0);
    right = yyjson_read(b.data, b.len, 0);
    compare_values(yyjson_doc_get_root(left), yyjson_doc_get_root(right), NULL, note, &found);
    CHECK(strncmp(buf_str(&found), "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a: {", 33) == 0);
}

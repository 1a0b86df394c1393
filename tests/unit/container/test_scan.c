#include "base/compiler.h"
#include "base/mem.h"
#include "container/scan.h"
#include "harness/test.h"

static struct scan of(const char *text)
{
    return scan_of(text, strlen(text));
}

TEST(lines_words_and_fields_are_cut_off_the_front)
{
    struct scan s = of("one  two\n\nthree"), line, word;
    CHECK(scan_line(&s, &line) && scan_is(line, "one  two"));
    CHECK(scan_word(&line, &word) && scan_is(word, "one"));
    CHECK(scan_word(&line, &word) && scan_is(word, "two"));
    CHECK(!scan_word(&line, &word));
    CHECK(scan_line(&s, &line) && scan_len(line) == 0);
    CHECK(scan_line(&s, &line) && scan_is(line, "three"));
    CHECK(!scan_line(&s, &line));
    s = of("a::b");
    CHECK(scan_until(&s, ':', &word) && scan_is(word, "a"));
    CHECK(scan_until(&s, ':', &word) && scan_len(word) == 0);
    CHECK(scan_until(&s, ':', &word) && scan_is(word, "b"));
    CHECK(!scan_until(&s, ':', &word));
}

TEST(nothing_is_no_line)
{
    struct scan s = scan_of(NULL, 0), line;
    CHECK(!scan_line(&s, &line));
    CHECK_INT(scan_len(s), 0);
}

TEST(a_text_need_not_end_in_nul)
{
    const char bytes[3] = {'1', '2', '3'};
    uint64_t n = 0;
    CHECK(scan_u64(scan_of(bytes, 2), 10, &n));
    CHECK_INT(n, 12);
}

TEST(numbers_are_whole_and_within_limits)
{
    uint64_t n = 0;
    int64_t i = 0;
    CHECK(scan_u64(of("18446744073709551615"), 10, &n) && n == UINT64_MAX);
    CHECK(!scan_u64(of("18446744073709551616"), 10, &n));
    CHECK(scan_u64(of("fFff"), 16, &n) && n == 0xffff);
    CHECK(scan_u64(of("777"), 8, &n) && n == 0777);
    CHECK(!scan_u64(of("8"), 8, &n));
    CHECK(!scan_u64(of("a"), 10, &n));
    CHECK(!scan_u64(of("g"), 16, &n));
    CHECK(!scan_u64(of(""), 10, &n));
    CHECK(!scan_u64(of("1 "), 10, &n));
    CHECK(!scan_u64(of("-1"), 10, &n));
    CHECK(scan_i64(of("-12"), -20, 0, &i) && i == -12);
    CHECK(scan_i64(of("9223372036854775807"), 0, INT64_MAX, &i) && i == INT64_MAX);
    CHECK(!scan_i64(of("9223372036854775808"), 0, INT64_MAX, &i));
    CHECK(!scan_i64(of("-21"), -20, 0, &i));
    CHECK(!scan_i64(of("1"), -20, 0, &i));
    CHECK(!scan_i64(of("-"), -20, 0, &i));
}

TEST(beginnings_and_ends_are_compared_within_the_text)
{
    CHECK(scan_starts(of("abc"), "ab") && scan_ends(of("abc"), "bc"));
    CHECK(!scan_starts(of("a"), "ab") && !scan_ends(of("c"), "bc"));
    CHECK(scan_starts(of("abc"), "") && scan_ends(of(""), ""));
}

TEST(copies_are_cut_to_fit)
{
    char small[4];
    scan_copy(of("abcdef"), small, sizeof(small));
    CHECK_STR(small, "abc");
    scan_copy(of(""), small, 1);
    CHECK_STR(small, "");
}

TEST(octal_escapes_are_undone)
{
    CLEANUP(mem_freep) char *a = scan_dup_unescaped(of("/a\\040b\\011c\\134"));
    CLEANUP(mem_freep) char *b = scan_dup_unescaped(of("/a\\04\\999\\000\\777\\"));
    CHECK_STR(a, "/a b\tc\\");
    CHECK_STR(b, "/a\\04\\999\\000\\777\\");
}

#include "base/num.h"
#include "harness/test.h"

static const struct {
    const char *text;
    bool good;
    uint64_t want;
} durations[] = {{"0", true, 0},
                 {"5", true, 5000000000ULL},
                 {"250ms", true, 250000000},
                 {"1.5s", true, 1500000000},
                 {"0.25m", true, 15000000000ULL},
                 {"2h", true, 7200000000000ULL},
                 {"7d", true, 604800000000000ULL},
                 {"0.0005s", true, 500000},
                 {"0.000000001s", true, 1},
                 {"1.0005m", true, 60030000000ULL},
                 {"0.5ms", true, 500000},
                 {"0.000001ms", true, 1},
                 {"1.5000000000000000000000s", true, 1500000000},
                 {"213503d", true, 18446659200000000000ULL},
                 {"213504d", false, 0},
                 {"0.0000000001s", false, 0}, /* would be zero, which may mean never */
                 {"0.0000001ms", false, 0},
                 {".5s", false, 0},
                 {"1.5.5s", false, 0},
                 {"", false, 0},
                 {"s", false, 0},
                 {"-1s", false, 0},
                 {"1.s", false, 0},
                 {"1 s", false, 0},
                 {"5x", false, 0},
                 {"99999999999999d", false, 0}},
  sizes[] = {{"0", true, 0},
             {"512M", true, 512ULL << 20},
             {"1GiB", true, 1ULL << 30},
             {"3T", true, 3ULL << 40},
             {"18446744073709551615", true, UINT64_MAX},
             {"16777215T", true, 16777215ULL << 40},
             {"16777216T", false, 0},
             {"18446744073709551616", false, 0},
             {"1K ", false, 0},
             {"1Ki", false, 0},
             {"1k", false, 0},
             {"1KK", false, 0},
             {"0x10", false, 0},
             {"", false, 0},
             {"M", false, 0},
             {"1MB", false, 0},
             {"-1", false, 0},
             {"99999999999T", false, 0}};

TEST(durations_are_whole_or_refused)
{
    struct err err = ERR_INIT;
    for (size_t i = 0; i < ARRAY_LEN(durations); i++) {
        uint64_t ns = 99;
        enum rc rc = num_parse_duration(durations[i].text, &ns, &err);
        CHECK((rc == RC_OK) == durations[i].good);
        CHECK(ns == (durations[i].good ? durations[i].want : 99));
    }
}

TEST(sizes_are_whole_or_refused)
{
    struct err err = ERR_INIT;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        uint64_t bytes = 99;
        enum rc rc = num_parse_size(sizes[i].text, &bytes, &err);
        CHECK((rc == RC_OK) == sizes[i].good);
        CHECK(bytes == (sizes[i].good ? sizes[i].want : 99));
    }
}

TEST(numbers_keep_their_limits)
{
    struct err err = ERR_INIT;
    uint64_t n = 0;
    CHECK_OK(num_parse_u64("18446744073709551615", 0, UINT64_MAX, &n, &err));
    CHECK(n == UINT64_MAX);
    CHECK_RC(num_parse_u64("18446744073709551616", 0, UINT64_MAX, &n, &err), RC_INVALID);
    CHECK_STR(err.msg, "18446744073709551616 is outside 0 to 18446744073709551615");
    CHECK(n == UINT64_MAX);
    CHECK_RC(num_parse_u64("99999999999999999999x", 0, 5, &n, &err), RC_INVALID);
    CHECK_STR(err.msg, "'99999999999999999999x' is no number");
    CHECK_RC(num_parse_u64("", 0, 5, &n, &err), RC_INVALID);
    CHECK_RC(num_parse_u64("4", 5, 10, &n, &err), RC_INVALID);
    CHECK_RC(num_parse_u64("11", 0, 10, &n, &err), RC_INVALID);
    CHECK_STR(err.msg, "11 is outside 0 to 10");
    CHECK_RC(num_parse_u64("1a", 0, 10, &n, &err), RC_INVALID);
    CHECK_RC(num_parse_u64(" 1", 0, 10, &n, &err), RC_INVALID);
}

TEST(truth)
{
    static const char *const yes[] = {"1", "true", "Yes", "ON"}, *const no[] = {"0", "False", "no",
                                                                                "off"};
    static const char *const neither[] = {"", " 1", "2", "y", "true ", "enabled"};
    struct err err = ERR_INIT;
    for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
        bool a = false, b = true;
        CHECK_OK(num_parse_bool(yes[i], &a, &err));
        CHECK_OK(num_parse_bool(no[i], &b, &err));
        CHECK(a && !b);
    }
    for (size_t i = 0; i < ARRAY_LEN(neither); i++) {
        bool a = true;
        CHECK_RC(num_parse_bool(neither[i], &a, &err), RC_INVALID);
        CHECK(a);
    }
}

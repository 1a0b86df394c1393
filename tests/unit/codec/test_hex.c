#include "codec/hex.h"
#include "harness/test.h"

TEST(bytes_become_digits_and_back)
{
    char text[7];
    uint8_t back[3];
    hex_format("\x00\x7f\xff", 3, text);
    CHECK_STR(text, "007fff");
    CHECK(hex_parse("007fFF", 6, back, 3) && memcmp(back, "\x00\x7f\xff", 3) == 0);
}

TEST(what_is_no_such_row_of_digits_is_refused)
{
    uint8_t back[3];
    CHECK(!hex_parse("007ff", 5, back, 3));
    CHECK(!hex_parse("007fff0", 7, back, 3));
    CHECK(!hex_parse("007ffg", 6, back, 3));
    CHECK(!hex_parse(" 07fff", 6, back, 3));
    CHECK(hex_parse("", 0, back, 0));
}

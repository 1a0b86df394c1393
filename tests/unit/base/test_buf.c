#include "base/buf.h"
#include "harness/test.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

TEST(grows_and_stays_terminated)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    CHECK_STR(buf_str(&b), "");
    for (int i = 0; i < 1000; i++)
        buf_addf(&b, "%d,", i);
    CHECK(b.len == 3890 && strlen(b.data) == b.len && !b.overflowed);
    char *text = buf_steal(&b);
    CHECK(strncmp(text, "0,1,2,", 6) == 0);
    CHECK(b.len == 0 && buf_str(&b)[0] == '\0');
    free(text);
}

TEST(past_its_limit_it_takes_nothing_more)
{
    CLEANUP(buf_done) struct buf b = {.max = 10};
    buf_adds(&b, "12345678");
    buf_adds(&b, "abc");
    CHECK(b.overflowed);
    buf_adds(&b, "x");
    CHECK_STR(buf_str(&b), "12345678");
    CHECK(buf_room(&b, 1) == NULL);
}

TEST(what_is_cut_was_never_added)
{
    CLEANUP(buf_done) struct buf b = {.max = 10};
    buf_cut(&b, 0);
    CHECK_STR(buf_str(&b), "");
    buf_adds(&b, "12345678");
    buf_adds(&b, "abc");
    CHECK(b.overflowed);
    buf_cut(&b, 4);
    CHECK(!b.overflowed && b.len == 4);
    buf_addf(&b, "%s", "567890");
    CHECK_STR(buf_str(&b), "1234567890");
}

TEST(after_its_content_was_given_away_it_takes_bytes_again)
{
    CLEANUP(buf_done) struct buf b = {.max = 4};
    buf_adds(&b, "1234");
    buf_adds(&b, "5");
    free(buf_steal(&b));
    CHECK(!b.overflowed && buf_max(&b) == 4);
    buf_adds(&b, "abcd");
    CHECK_STR(buf_str(&b), "abcd");
    CLEANUP(buf_done) struct buf none = BUF_INIT;
    char *text = buf_steal(&none);
    CHECK_STR(text, "");
    free(text);
    CHECK(buf_max(&none) == BUF_DEFAULT_MAX);
}

TEST(bytes_may_hold_nul_and_nothing_may_be_added)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    buf_add(&b, NULL, 0);
    buf_add(&b, "a\0b", 3);
    CHECK(b.len == 3 && memcmp(b.data, "a\0b", 4) == 0);
    CHECK(buf_room(&b, SIZE_MAX) == NULL && b.overflowed);
}

TEST(room_is_filled_by_the_caller)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    char *to = buf_room(&b, 3);
    CHECK(to);
    to[0] = 'x';
    to[1] = 'y';
    buf_grew(&b, 2);
    CHECK_STR(buf_str(&b), "xy");
}

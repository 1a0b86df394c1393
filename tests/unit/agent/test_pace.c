#include "agent/pace.h"
#include "base/compiler.h"
#include "harness/test.h"

#include <stdio.h>

TEST(a_burst_then_one_in_a_while)
{
    CLEANUP(pace_freep) struct pace *p = pace_new(3, 100);
    for (int i = 0; i < 3; i++)
        CHECK(pace_allows(p, "a", 1000));
    CHECK(!pace_allows(p, "a", 1099));
    CHECK(pace_allows(p, "b", 1099)); /* another one's count */
    CHECK(pace_allows(p, "a", 1100));
    CHECK(!pace_allows(p, "a", 1199));
    CHECK(pace_allows(p, "a", 100000));
    CHECK(pace_allows(p, "a", 100000));
    CHECK(pace_allows(p, "a", 100000));
    CHECK(!pace_allows(p, "a", 100000)); /* no more than a burst, however long it was quiet */
}

TEST(who_was_not_seen_for_longest_is_forgotten)
{
    char key[16];
    CLEANUP(pace_freep) struct pace *p = pace_new(1, 1000000);
    CHECK(pace_allows(p, "first", 1));
    CHECK(pace_allows(p, "second", 2));
    for (int i = 0; i < PACE_KEYS - 1; i++) {
        (void)snprintf(key, sizeof(key), "%d", i);
        CHECK(pace_allows(p, key, 3 + (uint64_t)i));
    }
    CHECK(!pace_allows(p, "second", 1000));
    CHECK(pace_allows(p, "first", 1000));
}

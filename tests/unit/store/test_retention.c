#include "base/clock.h"
#include "base/compiler.h"
#include "harness/test.h"
#include "store/retention.h"
#include "unit/store/checkpoints.h"

#include <stdio.h>
#include <unistd.h>

#define HOUR (3600 * CLOCK_S)

/* Six checkpoints of two boxes, an hour apart, the oldest first, and one without a date. */
struct sample {
    struct retention_item items[7];
    char times[6][CLOCK_RFC3339_LEN];
};

static void make_sample(struct sample *s)
{
    static const char *const ids[] = {"a1", "b1", "a2", "b2", "a3", "b3", "x"};
    for (unsigned i = 0; i < 7; i++) {
        s->items[i] = (struct retention_item){.id = ids[i], .name = i % 2 ? "b" : "a"};
        if (i == 6)
            continue;
        clock_rfc3339_ago((6 - i) * HOUR - HOUR / 2, s->times[i]); /* 5.5 h … 0.5 h ago */
        s->items[i].created_at = s->times[i];
    }
}

static void check_stay(const struct retention *r, const char *want)
{
    struct sample s = {0};
    bool retire[7];
    char got[8] = "";
    make_sample(&s);
    retention_choose(r, s.items, 7, retire);
    for (unsigned i = 0; i < 7; i++)
        got[i] = retire[i] ? '-' : '+';
    CHECK_STR(got, want);
}

TEST(a_checkpoint_stays_if_any_rule_keeps_it)
{
    check_stay(&(struct retention){0}, "+++++++");
    check_stay(&(struct retention){.per_name = true}, "+++++++");
    check_stay(&(struct retention){.keep_last = 1}, "-----++");
    check_stay(&(struct retention){.keep_last = 1, .per_name = true}, "----+++");
    check_stay(&(struct retention){.keep_last = 2, .per_name = true}, "--+++++");
    check_stay(&(struct retention){.keep_last = 6}, "+++++++");
    check_stay(&(struct retention){.keep_within_ns = 2 * HOUR}, "----+++");
    check_stay(&(struct retention){.keep_within_ns = UINT64_MAX}, "+++++++");
    check_stay(&(struct retention){.keep_last = 1, .keep_within_ns = 4 * HOUR}, "--+++++");
    check_stay(&(struct retention){.keep_last = 2, .keep_within_ns = 1, .per_name = true},
               "--+++++");
}

TEST(of_two_of_one_time_it_is_always_the_same_that_stays)
{
    static const char at[] = "2026-01-01T00:00:00Z";
    struct retention r = {.keep_last = 1};
    struct retention_item items[] = {{"x", NULL, at}, {"y", NULL, at}};
    struct retention_item turned[] = {items[1], items[0]};
    bool retire[2];
    retention_choose(&r, items, 2, retire);
    CHECK(retire[0] && !retire[1]);
    retention_choose(&r, turned, 2, retire);
    CHECK(!retire[0] && retire[1]);
}

TEST(what_has_had_its_time_is_deleted_and_named)
{
    struct err err = ERR_INIT;
    char **gone = NULL;
    struct retention r = {.keep_last = 1};
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CHECK_OK(checkpoint_make(s, "old", 1000, 10, &err));
    CHECK_OK(checkpoint_make(s, "broken", 1000, 10, &err));
    CHECK_OK(checkpoint_make(s, "new", 1000, 10, &err));
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/broken/checkpoint.done", test_dir());
    CHECK(unlink(path) == 0);
    for (int dry = 1; dry >= 0; dry--) {
        CHECK_OK(store_retire(s, &r, dry, &gone, &err));
        CHECK(gone[0] && !gone[1]);
        CHECK_STR(gone[0], "old");
        store_free_ids(gone);
    }
    CHECK_RC(store_find(s, "old", &e, &err), RC_NOT_FOUND);
    CHECK_OK(checkpoint_check(s, "new", 1000, 10, &err));
    CHECK_RC(store_find(s, "broken", &e, &err), RC_CORRUPT); /* for people to look at */
    CHECK_OK(store_retire(s, &r, false, &gone, &err));
    CHECK(!gone[0]);
    store_free_ids(gone);
}

#include "base/mem.h"
#include "harness/test.h"
#include "pager/record.h"

#include <pthread.h>
#include <stdlib.h>

TEST(neighbours_become_one_extent_and_no_page_comes_twice)
{
    struct record r;
    struct workingset_extent *e = NULL;
    record_init(&r);
    const uint64_t pages[] = {7, 5, 6, 5, 100, 7};
    for (size_t i = 0; i < ARRAY_LEN(pages); i++)
        record_add(&r, 1, pages[i]);
    record_add(&r, 2, 8);
    CHECK_INT(record_extents(&r, NULL, 0, &e), 3);
    CHECK(e[0].stream == 1 && e[0].first == 5 && e[0].pages == 3);
    CHECK(e[1].stream == 1 && e[1].first == 100 && e[1].pages == 1);
    CHECK(e[2].stream == 2 && e[2].first == 8 && e[2].pages == 1);
    free(e);
    record_done(&r);
}

TEST(an_older_record_comes_first_and_only_what_is_new_is_added)
{
    struct record r;
    struct workingset_extent *e = NULL;
    const struct workingset_extent old[] = {{3, 10, 500}, {1, 4, 0}};
    record_init(&r);
    record_add(&r, 1, 3);
    record_add(&r, 1, 4);
    record_add(&r, 3, 505);
    record_add(&r, 3, 499);
    CHECK_INT(record_extents(&r, old, 2, &e), 4);
    CHECK(e[0].stream == 3 && e[0].first == 500 && e[1].stream == 1 && e[1].first == 0);
    CHECK(e[2].stream == 1 && e[2].first == 4 && e[2].pages == 1);
    CHECK(e[3].stream == 3 && e[3].first == 499 && e[3].pages == 1);
    free(e);
    record_done(&r);
}

TEST(what_was_touched_much_later_stays_later)
{
    struct record r;
    struct workingset_extent *e = NULL;
    record_init(&r);
    for (uint64_t i = 0; i < 20000; i++)
        record_add(&r, 1, 100000 - i);
    size_t n = record_extents(&r, NULL, 0, &e);
    CHECK(n > 1 && e[0].first > e[n - 1].first);
    free(e);
    record_done(&r);
}

TEST(a_closed_record_takes_nothing)
{
    struct record r;
    struct workingset_extent *e = NULL;
    record_init(&r);
    record_add(&r, 1, 1);
    record_close(&r);
    record_add(&r, 1, 9);
    CHECK_INT(record_extents(&r, NULL, 0, &e), 1);
    CHECK_INT(e[0].pages, 1);
    free(e);
    record_done(&r);
}

static void *add_many(void *arg)
{
    for (uint64_t i = 0; i < 5000; i++)
        record_add(arg, 1, i);
    return NULL;
}

TEST(threads_may_add_at_the_same_time)
{
    struct record r;
    struct workingset_extent *e = NULL;
    pthread_t other;
    record_init(&r);
    CHECK(pthread_create(&other, NULL, add_many, &r) == 0);
    (void)add_many(&r);
    CHECK(pthread_join(other, NULL) == 0);
    CHECK_INT(record_extents(&r, NULL, 0, &e), 1);
    CHECK_INT(e[0].pages, 5000);
    free(e);
    record_done(&r);
}

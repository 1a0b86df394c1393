/* Which chunk of a working set is whose, and when its memory goes back. */
#include "harness/test.h"
#include "pager/early.h"

#include <string.h>

/* Ten chunks: of stream 1 pages 1000 to 1599, then 0 to 39 of stream 2, and what is before. */
static const struct workingset_extent extents[] = {{1, 600, 1000}, {2, 40, 0}};
static const struct workingset set = {.extents = (struct workingset_extent *)(uintptr_t)extents,
                                      .n_extents = 2,
                                      .n_chunks = 10,
                                      .pages = 640,
                                      .fd = -1};

TEST(without_a_set_there_is_nothing_to_do)
{
    struct early *e = early_new(NULL, (size_t)64 << 20);
    CHECK(early_expand(e) == EARLY_NONE && early_give(e) == EARLY_NONE);
    CHECK(early_find(e, 1, 1000) == EARLY_NONE);
    early_freep(&e);
}

TEST(each_chunk_is_given_once_in_order)
{
    struct early *e = early_new(&set, 0);
    CHECK(early_expand(e) == EARLY_NONE); /* no budget */
    for (size_t i = 0; i < 10; i++) {
        CHECK(early_give(e) == i);
        CHECK(!early_data(e, i) && early_in_hand(e, i));
        CHECK(!early_give_this(e, i));
        CHECK(early_given(e, i) == (i == 9));
        CHECK(!early_in_hand(e, i) && !early_give_this(e, i));
    }
    CHECK(early_give(e) == EARLY_NONE);
    early_freep(&e);
}

TEST(what_is_expanded_is_found_when_it_is_given)
{
    struct early *e = early_new(&set, 3 * MEMORY_CHUNK);
    for (size_t i = 0; i < 3; i++) {
        CHECK(early_expand(e) == i);
        memset(early_data(e, i), (int)i + 1, MEMORY_CHUNK);
        CHECK(early_in_hand(e, i));
    }
    CHECK(early_expand(e) == EARLY_NONE); /* no more fit */
    early_expanded(e, 0, true);
    early_expanded(e, 2, false); /* damaged: who gives it tries again */
    CHECK(early_give(e) == 0 && early_data(e, 0)[MEMORY_CHUNK - 1] == 1);
    CHECK(early_give(e) == 2 && !early_data(e, 2)); /* 1 is in hand still */
    early_expanded(e, 1, true);
    CHECK(early_give_this(e, 1) && early_data(e, 1)[0] == 2);
    early_freep(&e);
}

TEST(a_page_is_found_in_its_chunk)
{
    struct early *e = early_new(&set, 0);
    CHECK(early_find(e, 1, 1000) == 0 && early_find(e, 1, 1063) == 0);
    CHECK(early_find(e, 1, 1064) == 1 && early_find(e, 1, 1599) == 9);
    CHECK(early_find(e, 2, 0) == 9 && early_find(e, 2, 39) == 9);
    CHECK(early_find(e, 1, 999) == EARLY_NONE && early_find(e, 1, 1600) == EARLY_NONE);
    CHECK(early_find(e, 2, 40) == EARLY_NONE && early_find(e, 3, 0) == EARLY_NONE);
    early_freep(&e);
}

#include "base/compiler.h"
#include "harness/test.h"
#include "store/page_table.h"

static struct page_name name_of(uint64_t n)
{
    return (struct page_name){{n * 0x9e3779b97f4a7c15ULL, n, ~n}};
}

static void check_there(const struct page_table *t, uint64_t n)
{
    struct page_name name = name_of(n);
    const struct page_place *p = page_table_find(t, &name);
    if (!p || p->chunk != n || p->page != n % 64)
        test_fail(__FILE__, __LINE__, "page %ju is not where it was put", (uintmax_t)n);
}

static void add(struct page_table *t, uint64_t n)
{
    struct page_name name = name_of(n);
    page_table_add(t, &name, (struct page_place){(uint32_t)n, (uint32_t)(n % 64)});
}

TEST(what_was_added_is_found_and_nothing_else)
{
    CLEANUP(page_table_done) struct page_table t = {0};
    struct page_name other = name_of(7);
    CHECK(!page_table_find(&t, &other));
    for (uint64_t n = 0; n < 100000; n++)
        add(&t, n);
    for (uint64_t n = 0; n < 100000; n++)
        check_there(&t, n);
    other = name_of(100000);
    CHECK(!page_table_find(&t, &other));
    other = name_of(7);
    other.word[2] ^= 1; /* all of the name counts, not only what places it */
    CHECK(!page_table_find(&t, &other));
    CHECK_INT(t.used, 100000);
}

TEST(names_that_begin_alike_are_kept_apart)
{
    CLEANUP(page_table_done) struct page_table t = {0};
    for (uint32_t i = 0; i < 3000; i++) {
        struct page_name same = {{42, i, 0}};
        page_table_add(&t, &same, (struct page_place){i, 0});
    }
    for (uint32_t i = 0; i < 3000; i++) {
        struct page_name same = {{42, i, 0}};
        CHECK(page_table_find(&t, &same)->chunk == i);
    }
}

TEST(a_full_table_forgets_what_is_new_and_keeps_what_it_has)
{
    CLEANUP(page_table_done) struct page_table t = {.max = 5000};
    for (uint64_t n = 0; n < 20000; n++)
        add(&t, n);
    CHECK_INT(t.used, 5000);
    CHECK(t.capacity <= 8192);
    for (uint64_t n = 0; n < 5000; n++)
        check_there(&t, n);
    struct page_name past = name_of(5000);
    CHECK(!page_table_find(&t, &past));
}

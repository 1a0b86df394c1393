#include "base/compiler.h"
#include "engine/known.h"
#include "harness/test.h"

#include <stdlib.h>
#include <string.h>

#define PAGE MEMORY_PAGE

/* Drafts are only told apart here, never looked into. */
static const struct page_input *draft(size_t n)
{
    static char places[8];
    return (const struct page_input *)(const void *)&places[n];
}

static void add(struct known *k, uint64_t page, uint64_t pages, size_t from, uint64_t at)
{
    known_add(k, &(struct known_run){page * PAGE, pages, draft(from), at});
}

struct missed {
    uint64_t page[16], pages[16];
    size_t n;
};

static void miss(void *arg, uint64_t address, uint64_t pages)
{
    struct missed *m = arg;
    CHECK(m->n < 16);
    m->page[m->n] = address / PAGE;
    m->pages[m->n++] = pages;
}

TEST(an_empty_table_knows_nothing)
{
    struct known_run r;
    const struct known none = {0};
    CHECK(!known_find(&none, 5 * PAGE, 7, &r));
    CHECK_INT(r.pages, 7);
    CHECK(!r.draft);
}

TEST(runs_that_go_on_in_the_same_draft_become_one)
{
    CLEANUP(known_done) struct known k = {0};
    add(&k, 10, 2, 0, 4);
    add(&k, 12, 3, 0, 6);
    CHECK_INT(k.n, 1);
    add(&k, 15, 1, 1, 9);  /* another draft */
    add(&k, 16, 1, 1, 11); /* not the next page of it */
    CHECK_INT(k.n, 3);
}

TEST(what_is_found_is_cut_to_the_question)
{
    struct known_run r;
    CLEANUP(known_done) struct known k = {0};
    add(&k, 30, 4, 1, 100);
    add(&k, 10, 5, 0, 20);
    known_sort(&k);
    CHECK(known_find(&k, 12 * PAGE, 2, &r));
    CHECK_INT(r.at, 22);
    CHECK_INT(r.pages, 2);
    CHECK(known_find(&k, 12 * PAGE, 100, &r));
    CHECK_INT(r.pages, 3);
    CHECK(!known_find(&k, 15 * PAGE, 100, &r));
    CHECK_INT(r.pages, 15);
    CHECK(known_find(&k, 33 * PAGE, 100, &r));
    CHECK_INT(r.at, 103);
    CHECK(!known_find(&k, 34 * PAGE, 100, &r));
    CHECK_INT(r.pages, 100);
    CHECK(!known_find(&k, 9 * PAGE, 1, &r));
}

TEST(only_what_is_kept_stays_and_the_rest_is_told)
{
    struct missed m = {.n = 0};
    CLEANUP(known_done) struct known old = {0};
    CLEANUP(known_done) struct known now = {0};
    add(&old, 10, 10, 0, 0);
    add(&old, 30, 10, 1, 50);
    known_keep(&old, 15 * PAGE, 20, &now, miss, &m);
    CHECK_INT(now.n, 2);
    CHECK_INT(now.list[0].address / PAGE, 15);
    CHECK_INT(now.list[0].pages, 5);
    CHECK_INT(now.list[0].at, 5);
    CHECK_INT(now.list[1].address / PAGE, 30);
    CHECK_INT(now.list[1].pages, 5);
    CHECK_INT(now.list[1].at, 50);
    CHECK_INT(m.n, 1);
    CHECK_INT(m.page[0], 20);
    CHECK_INT(m.pages[0], 10);
}

/* Against an array that says of each page where it is. */
TEST(any_table_agrees_with_an_array)
{
    enum { SPACE = 200 };
    srand(4711);
    for (unsigned round = 0; round < 300; round++) {
        uint64_t where[SPACE] = {0};
        struct missed m = {.n = 0};
        CLEANUP(known_done) struct known k = {0};
        CLEANUP(known_done) struct known kept = {0};
        for (uint64_t page = 0, next = 1; page < SPACE;) {
            uint64_t n = 1 + (uint64_t)rand() % 20, gap = 10 + (uint64_t)rand() % 30;
            n = n < SPACE - page ? n : SPACE - page;
            for (uint64_t i = 0; i < n; i++)
                where[page + i] = next + i;
            add(&k, page, n, 0, next);
            next += n + (uint64_t)rand() % 2;
            page += n + gap;
        }
        known_sort(&k);
        uint64_t from = (uint64_t)rand() % SPACE, n = (uint64_t)rand() % (SPACE - from);
        known_keep(&k, from * PAGE, n, &kept, miss, &m);
        for (uint64_t page = 0; page < SPACE; page++) {
            struct known_run r;
            bool is = known_find(&kept, page * PAGE, 1, &r);
            bool in = page >= from && page < from + n && where[page];
            CHECK_INT(is, in);
            CHECK(!is || r.at == where[page]);
        }
    }
}

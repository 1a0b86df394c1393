#include "base/mem.h"
#include "harness/test.h"
#include "pager/regions.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PAGE REGIONS_PAGE
#define SPACE_PAGES 600U

TEST(a_run_ends_where_pages_are_no_longer_missing)
{
    CLEANUP(regions_done) struct regions r = {.missing = 0};
    struct regions_run run;
    regions_add(&r, 10 * PAGE, 100, 7, 1000);
    regions_add(&r, 110 * PAGE, 5, 8, 0);
    CHECK_INT(regions_missing(&r), 105);
    CHECK(!regions_find(&r, 9 * PAGE, 1, &run));
    CHECK(regions_find(&r, 20 * PAGE, 64, &run));
    CHECK_INT(run.pages, 64);
    CHECK_INT(run.first, 1010);
    CHECK_INT(run.stream, 7);
    regions_filled(&r, 30 * PAGE, 2);
    CHECK(regions_find(&r, 20 * PAGE, 64, &run));
    CHECK_INT(run.pages, 10);
    CHECK(!regions_find(&r, 31 * PAGE, 1, &run));
    CHECK(regions_next(&r, 30 * PAGE, 1000, &run));
    CHECK_INT(run.address, 32 * PAGE);
    CHECK_INT(run.pages, 78); /* not beyond its region */
    CHECK(regions_next(&r, 115 * PAGE, 1, &run) == false);
    CHECK_INT(regions_missing(&r), 103);
}

TEST(filling_twice_counts_once)
{
    CLEANUP(regions_done) struct regions r = {.missing = 0};
    regions_add(&r, 0, 200, 1, 0);
    regions_filled(&r, 0, 130);
    regions_filled(&r, 60 * PAGE, 130);
    regions_filled(&r, 60 * PAGE, 0);
    CHECK_INT(regions_missing(&r), 10);
}

/* ---- events in the wrong order ---- */

TEST(an_unmapping_that_is_told_late_is_not_for_what_was_moved_there_since)
{
    CLEANUP(regions_done) struct regions r = {.missing = 0};
    struct regions_run run;
    regions_add(&r, 10 * PAGE, 10, 1, 0);
    regions_add(&r, 50 * PAGE, 10, 2, 0);
    regions_move(&r, 50 * PAGE, 10 * PAGE, 10 * PAGE);
    CHECK(regions_find(&r, 10 * PAGE, 10, &run) && run.stream == 2);
    CHECK_INT(regions_missing(&r), 20);
    regions_unmap(&r, 10 * PAGE, 10 * PAGE);
    CHECK(regions_find(&r, 10 * PAGE, 10, &run) && run.stream == 2 && run.pages == 10);
    CHECK_INT(regions_missing(&r), 10);
    regions_unmap(&r, 10 * PAGE, 10 * PAGE); /* but the next one is */
    CHECK_INT(regions_missing(&r), 0);
}

TEST(a_move_that_is_told_late_moves_what_lay_there_before)
{
    CLEANUP(regions_done) struct regions r = {.missing = 0};
    struct regions_run run;
    regions_add(&r, 10 * PAGE, 10, 1, 0);
    regions_add(&r, 50 * PAGE, 4, 2, 0);
    regions_move(&r, 50 * PAGE, 13 * PAGE, 4 * PAGE);
    regions_move(&r, 10 * PAGE, 100 * PAGE, 10 * PAGE);
    CHECK(regions_find(&r, 100 * PAGE, 99, &run) && run.stream == 1 && run.first == 0);
    CHECK(regions_find(&r, 103 * PAGE, 99, &run) && run.stream == 1 && run.first == 3);
    CHECK(regions_find(&r, 109 * PAGE, 99, &run) && run.stream == 1 && run.first == 9);
    CHECK(regions_find(&r, 13 * PAGE, 99, &run) && run.stream == 2 && run.pages == 4);
    CHECK(!regions_find(&r, 10 * PAGE, 1, &run));
    CHECK_INT(regions_missing(&r), 14);
}

TEST(two_moves_may_both_be_late)
{
    CLEANUP(regions_done) struct regions r = {.missing = 0};
    struct regions_run run;
    regions_add(&r, 10 * PAGE, 2, 1, 0);
    regions_add(&r, 20 * PAGE, 2, 2, 0);
    regions_add(&r, 30 * PAGE, 2, 3, 0);
    regions_move(&r, 30 * PAGE, 20 * PAGE, 2 * PAGE); /* done last, told first */
    regions_move(&r, 20 * PAGE, 10 * PAGE, 2 * PAGE);
    regions_move(&r, 10 * PAGE, 40 * PAGE, 2 * PAGE);
    CHECK(regions_find(&r, 40 * PAGE, 9, &run) && run.stream == 1 && run.pages == 2);
    CHECK(regions_find(&r, 10 * PAGE, 9, &run) && run.stream == 2 && run.pages == 2);
    CHECK(regions_find(&r, 20 * PAGE, 9, &run) && run.stream == 3 && run.pages == 2);
    CHECK_INT(regions_missing(&r), 6);
}

TEST(the_old_place_of_a_move_is_told_of_after_something_else_has_moved_there)
{
    CLEANUP(regions_done) struct regions r = {.missing = 0};
    struct regions_run run;
    regions_add(&r, 10 * PAGE, 4, 1, 0);
    regions_add(&r, 20 * PAGE, 4, 2, 0);
    regions_move(&r, 10 * PAGE, 40 * PAGE, 4 * PAGE); /* by one thread */
    regions_move(&r, 20 * PAGE, 10 * PAGE, 4 * PAGE); /* by another one */
    regions_unmap(&r, 10 * PAGE, 4 * PAGE);           /* of the first thread's */
    regions_unmap(&r, 20 * PAGE, 4 * PAGE);
    CHECK(regions_find(&r, 40 * PAGE, 9, &run) && run.stream == 1 && run.pages == 4);
    CHECK(regions_find(&r, 10 * PAGE, 9, &run) && run.stream == 2 && run.pages == 4);
    CHECK_INT(regions_missing(&r), 8);
    regions_unmap(&r, 10 * PAGE, 4 * PAGE); /* its own end */
    CHECK(!regions_find(&r, 10 * PAGE, 1, &run));
    CHECK_INT(regions_missing(&r), 4);
}

TEST(what_is_filled_is_still_mapped_and_its_end_is_not_that_of_what_comes_there)
{
    CLEANUP(regions_done) struct regions r = {.missing = 0};
    struct regions_run run;
    regions_add(&r, 10 * PAGE, 4, 1, 0);
    regions_add(&r, 20 * PAGE, 4, 2, 0);
    regions_filled(&r, 10 * PAGE, 4);
    regions_move(&r, 20 * PAGE, 10 * PAGE, 4 * PAGE);
    CHECK(!regions_miss_late(&r));
    regions_unmap(&r, 10 * PAGE, 4 * PAGE); /* done before the move, told after it */
    CHECK(regions_find(&r, 10 * PAGE, 9, &run) && run.stream == 2 && run.pages == 4);
}

/* ---- against a simple model: for each page what it is, 0 = nothing ---- */

struct model {
    uint64_t page[SPACE_PAGES];
};

static unsigned below(unsigned *seed, unsigned n)
{
    *seed = *seed * 1103515245U + 12345U;
    return (*seed >> 8) % n;
}

static uint64_t name_of(uint32_t stream, uint64_t first)
{
    return (uint64_t)stream << 32 | (first + 1);
}

static void compare(const struct regions *r, const struct model *m)
{
    uint64_t missing = 0;
    for (uint64_t i = 0; i < SPACE_PAGES; i++) {
        struct regions_run run;
        bool found = regions_find(r, i * PAGE, SPACE_PAGES, &run);
        CHECK(found == (m->page[i] != 0));
        for (uint64_t k = 0; found && k < run.pages; k++)
            CHECK(m->page[i + k] == name_of(run.stream, run.first + k));
        uint64_t next = i;
        while (next < SPACE_PAGES && !m->page[next])
            next++;
        CHECK(regions_next(r, i * PAGE, 1, &run) == (next < SPACE_PAGES));
        CHECK(next == SPACE_PAGES || run.address == next * PAGE);
        missing += found;
    }
    CHECK_INT(regions_missing(r), missing);
}

static void change(struct regions *r, struct model *m, unsigned *seed)
{
    unsigned n = 1 + below(seed, 70), from = below(seed, SPACE_PAGES - n);
    unsigned to = below(seed, SPACE_PAGES - n);
    struct model old = *m;
    switch (below(seed, 4)) {
    case 0:
        regions_filled(r, from * PAGE, n);
        memset(&m->page[from], 0, n * sizeof(m->page[0]));
        break;
    case 1:
        regions_cut(r, from * PAGE, n * PAGE);
        memset(&m->page[from], 0, n * sizeof(m->page[0]));
        break;
    case 2:
        regions_unmap(r, from * PAGE, n * PAGE);
        memset(&m->page[from], 0, n * sizeof(m->page[0]));
        break;
    default:
        if (to < from + n && from < to + n)
            return;                            /* the kernel does not move so */
        regions_unmap(r, to * PAGE, n * PAGE); /* as the kernel tells it */
        regions_move(r, from * PAGE, to * PAGE, n * PAGE);
        regions_unmap(r, from * PAGE, n * PAGE);
        memset(&m->page[from], 0, n * sizeof(m->page[0]));
        memcpy(&m->page[to], &old.page[from], n * sizeof(m->page[0]));
    }
}

#define SHARED_PAGES 2000000U

/* Where the other thread is; atomic. */
struct race {
    struct regions r;
    uint64_t at;
};

static void *fill_all(void *arg)
{
    struct race *x = arg;
    for (uint64_t page = 0; page < SHARED_PAGES; page++) {
        __atomic_store_n(&x->at, page, __ATOMIC_RELAXED);
        regions_filled(&x->r, page * PAGE, 1);
    }
    return NULL;
}

/* Two threads give the same page: the one that comes too late must not give nothing, which the
 * kernel refuses. */
TEST(a_run_is_never_empty_whatever_others_fill)
{
    struct race x = {.at = 0};
    struct regions_run run;
    pthread_t thread;
    regions_add(&x.r, 0, SHARED_PAGES, 1, 0);
    CHECK(pthread_create(&thread, NULL, fill_all, &x) == 0);
    while (regions_missing(&x.r) > 0) {
        uint64_t at = __atomic_load_n(&x.at, __ATOMIC_RELAXED) * PAGE;
        CHECK(!regions_find(&x.r, at, 64, &run) || run.pages > 0);
        CHECK(!regions_next(&x.r, at, 64, &run) || run.pages > 0);
    }
    (void)pthread_join(thread, NULL);
    regions_done(&x.r);
}

TEST(whatever_a_program_does_the_table_follows)
{
    for (unsigned round = 0; round < 60; round++) {
        CLEANUP(regions_done) struct regions r = {.missing = 0};
        CLEANUP(regions_done) struct regions child = {.missing = 0};
        struct model m = {{0}}, at_fork = {{0}};
        unsigned seed = round * 7919 + 1;
        for (unsigned at = below(&seed, 20), i = 1; at < SPACE_PAGES - 150; i++) {
            unsigned n = 1 + below(&seed, 140);
            regions_add(&r, at * PAGE, n, i, 5000UL * i);
            for (unsigned k = 0; k < n; k++)
                m.page[at + k] = name_of(i, 5000 * i + k);
            at += n + below(&seed, 30);
        }
        for (unsigned i = 0; i < 40; i++) {
            change(&r, &m, &seed);
            compare(&r, &m);
            if (i == 20) {
                regions_clone(&r, &child);
                at_fork = m;
            }
        }
        compare(&child, &at_fork); /* what came later is the parent's alone */
    }
}

#include "backend/cache.h"
#include "backend/drivers.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "harness/httpd.h"
#include "harness/test.h"
#include "store/pack.h"
#include "store/page_scan.h"
#include "unit/store/broken.h"
#include "unit/store/samples.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SOME 3000U

/* A stored stream, and what was handed on of it. */
struct stored {
    struct backend *inner, *b; /* b: counts what is read of inner */
    struct memory m;
    struct page_reader *r;
    uint64_t numbers[SOME];
    uint8_t *got;
    atomic_ulong visits, pages;
    atomic_bool refuses;
};

/* Every fifth page is zero, every other one is there twice, far apart. */
static void store_some(struct stored *s)
{
    struct err err = ERR_INIT;
    struct page_writer_totals t;
    CHECK_OK(backend_mem_open(&s->inner, &err));
    s->b = broken_open(s->inner);
    for (size_t i = 0; i < SOME; i++)
        s->numbers[i] = i % 5 == 4 ? 0 : i % (SOME / 2) + 1;
    CHECK_OK(sample_write(s->b, 1, s->numbers, SOME, &s->m, &t, &err));
    CHECK_OK(page_reader_open(s->b, NULL, &s->m, &s->r, &err));
    s->got = mem_zalloc((size_t)2 * SOME * MEMORY_PAGE);
    broken_disarm(s->b);
}

static void done(struct stored *s)
{
    page_reader_freep(&s->r);
    memory_done(&s->m);
    backend_freep(&s->b);
    backend_freep(&s->inner);
    free(s->got);
}

static enum rc visit(void *arg, const struct page_piece *pieces, size_t n, const uint8_t *pages,
                     struct err *err)
{
    struct stored *s = arg;
    atomic_fetch_add(&s->visits, 1);
    for (size_t i = 0; i < n; i++) {
        const struct page_piece *p = &pieces[i];
        CHECK(p->chunk == pieces->chunk && p->place < 2);
        CHECK(i == 0 || p->place > p[-1].place || p->to > p[-1].to);
        memcpy(s->got + (size_t)p->place * SOME * MEMORY_PAGE + p->to,
               pages + (size_t)p->at * MEMORY_PAGE, p->pages * MEMORY_PAGE);
        atomic_fetch_add(&s->pages, p->pages);
    }
    return atomic_load(&s->refuses) ? err_set(err, RC_DENIED, "not here") : RC_OK;
}

static void check_page(const struct stored *s, size_t place, size_t at, uint64_t number)
{
    char want[MEMORY_PAGE];
    sample_page(number, want);
    CHECK(memcmp(s->got + (place * SOME + at) * MEMORY_PAGE, want, MEMORY_PAGE) == 0);
}

TEST(every_page_goes_to_its_places_and_every_chunk_is_read_once)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct stored s = {0};
    store_some(&s);
    CLEANUP(page_scan_freep) struct page_scan *scan = page_scan_new(s.r);
    CHECK_OK(page_scan_want(scan, 1, 0, SOME, 0, 0, &err));
    for (size_t at = 0; at + 7 <= 1000; at += 7) /* in another order */
        CHECK_OK(page_scan_want(scan, 1, at, 7, 1, (2000 - at) * MEMORY_PAGE, &err));
    page_scan_begin(scan, visit, &s);
    CHECK_OK(page_scan_finish(scan, &err));
    for (size_t i = 0; i < SOME; i++)
        check_page(&s, 0, i, s.numbers[i]);
    for (size_t i = 0; i < 994; i++)
        check_page(&s, 1, 2000 - i / 7 * 7 + i % 7, s.numbers[i]);
    CHECK_INT(s.visits, s.m.n_chunks);
    CHECK_INT(s.pages, page_scan_pages(scan));
    CHECK(broken_calls(s.b, BROKEN_READ) < s.m.n_chunks); /* neighbours are read together */
}

TEST(what_is_far_away_in_a_pack_is_not_read)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct stored s = {0};
    store_some(&s);
    CLEANUP(page_scan_freep) struct page_scan *scan = page_scan_new(s.r);
    CHECK_OK(page_scan_want(scan, 1, 0, 1, 0, 0, &err));
    CHECK_OK(page_scan_want(scan, 1, SOME / 2 - 2, 1, 0, MEMORY_PAGE, &err));
    page_scan_begin(scan, visit, &s);
    CHECK_OK(page_scan_finish(scan, &err));
    check_page(&s, 0, 0, s.numbers[0]);
    check_page(&s, 0, 1, s.numbers[SOME / 2 - 2]);
    CHECK_INT(broken_calls(s.b, BROKEN_READ), 2);
}

TEST(reading_begins_at_once_and_nothing_is_handed_on_before_the_end)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct stored s = {0};
    store_some(&s);
    CLEANUP(page_scan_freep) struct page_scan *scan = page_scan_new(s.r);
    CHECK_OK(page_scan_want(scan, 1, 0, SOME, 0, 0, &err));
    page_scan_begin(scan, visit, &s);
    for (unsigned i = 0; i < 10000 && !broken_calls(s.b, BROKEN_READ); i++)
        httpd_pause(1);
    CHECK(broken_calls(s.b, BROKEN_READ) > 0);
    CHECK_INT(s.visits, 0);
    CHECK_OK(page_scan_finish(scan, &err));
    CHECK_INT(s.visits, s.m.n_chunks);
}

TEST(a_scan_that_is_given_up_hands_nothing_on)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct stored s = {0};
    store_some(&s);
    CLEANUP(page_scan_freep) struct page_scan *scan = page_scan_new(s.r);
    CHECK_OK(page_scan_want(scan, 1, 0, SOME, 0, 0, &err));
    page_scan_begin(scan, visit, &s);
    page_scan_freep(&scan);
    CHECK_INT(s.visits, 0);
    scan = page_scan_new(s.r); /* nor one that has not begun, or wants nothing */
    CHECK_OK(page_scan_want(scan, 1, 0, SOME, 0, 0, &err));
    page_scan_freep(&scan);
    scan = page_scan_new(s.r);
    page_scan_begin(scan, visit, &s);
    CHECK_OK(page_scan_finish(scan, &err));
    CHECK_INT(s.visits, 0);
}

TEST(pages_that_are_not_there_are_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct stored s = {0};
    store_some(&s);
    CLEANUP(page_scan_freep) struct page_scan *scan = page_scan_new(s.r);
    CHECK_RC(page_scan_want(scan, 1, SOME, 1, 0, 0, &err), RC_CORRUPT);
    CHECK_RC(page_scan_want(scan, 1, 1, UINT64_MAX, 0, 0, &err), RC_CORRUPT);
    CHECK_RC(page_scan_want(scan, 2, 0, 1, 0, 0, &err), RC_CORRUPT);
    CHECK_STR(err.msg, "page image 2 has no such pages");
    CHECK_INT(page_scan_pages(scan), 0);
}

TEST(the_first_failure_ends_a_scan)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct stored s = {0};
    store_some(&s);
    CLEANUP(page_scan_freep) struct page_scan *scan = page_scan_new(s.r);
    atomic_store(&s.refuses, true);
    CHECK_OK(page_scan_want(scan, 1, 0, SOME, 0, 0, &err));
    page_scan_begin(scan, visit, &s);
    CHECK_RC(page_scan_finish(scan, &err), RC_DENIED);
    CHECK_STR(err.msg, "not here");
}

TEST(failures_of_the_storage_are_told)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct stored s = {0};
    store_some(&s);
    broken_arm(s.b, BROKEN_READ, 0);
    CHECK_RC(page_scan_verify(s.r, NULL, &err), RC_NO_SPACE);
    CHECK(strstr(err.msg, "packs/"));
}

TEST(all_chunks_are_verified)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct stored s = {0};
    char key[PACK_KEY_LEN];
    uint64_t count = 0;
    size_t len = 0;
    store_some(&s);
    CHECK_OK(page_scan_verify(s.r, &count, &err));
    CHECK_INT(count, memory_totals(&s.m).bytes);
    CHECK_OK(page_scan_verify(s.r, NULL, &err));
    const struct memory_chunk *last = &s.m.chunks[s.m.n_chunks - 1];
    pack_key(s.m.packs[last->pack].name, key);
    CLEANUP(mem_freep) char *bytes = sample_read(s.b, key, &len);
    bytes[last->offset] ^= 1;
    sample_replace(s.b, key, bytes, len);
    page_reader_freep(&s.r);
    CHECK_OK(page_reader_open(s.b, NULL, &s.m, &s.r, &err));
    CHECK_RC(page_scan_verify(s.r, NULL, &err), RC_CORRUPT);
    CLEANUP(mem_freep)
    char *want = mem_asprintf("memory is damaged: chunk at byte %ju of pack '%s'",
                              (uintmax_t)last->offset, s.m.packs[last->pack].name);
    CHECK_STR(err.msg, want);
}

TEST(what_a_cache_has_of_a_damaged_pack_is_read_anew)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct stored s = {0};
    char key[PACK_KEY_LEN];
    size_t len = 0;
    store_some(&s);
    pack_key(s.m.packs[0].name, key);
    CLEANUP(mem_freep) char *good = sample_read(s.inner, key, &len);
    CLEANUP(mem_freep) char *bad = sample_read(s.inner, key, &len);
    CLEANUP(mem_freep) char *dir = mem_asprintf("%s/cache", test_dir());
    CLEANUP(backend_freep) struct backend *cache = NULL;
    CLEANUP(page_reader_freep) struct page_reader *r = NULL;
    const struct cache_options o = {.dir = dir, .bytes = CACHE_MIN, .storage = "x"};
    bad[s.m.chunks[0].offset] ^= 1;
    sample_replace(s.inner, key, bad, len);
    CHECK_OK(backend_cache_open(s.inner, &o, &cache, &err));
    CHECK_OK(page_reader_open(cache, NULL, &s.m, &r, &err));
    CHECK_RC(page_scan_verify(r, NULL, &err), RC_CORRUPT);
    page_reader_freep(&r);
    sample_replace(s.inner, key, good, len); /* the cache still has the bad one */
    CHECK_OK(page_reader_open(cache, NULL, &s.m, &r, &err));
    CHECK_OK(page_scan_verify(r, NULL, &err));
    page_reader_freep(&s.r);
    s.inner = NULL; /* the cache's */
}

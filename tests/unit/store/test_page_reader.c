#include "backend/drivers.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "harness/test.h"
#include "store/pack.h"
#include "store/page_reader.h"
#include "unit/store/broken.h"
#include "unit/store/samples.h"

#include <stdlib.h>

#define SOME 300U

/* A stored stream, its only pack, and a way to spoil it. */
struct stored {
    struct backend *b;
    struct memory m;
    uint64_t numbers[SOME];
    char key[PACK_KEY_LEN];
    char *bytes;
    size_t len;
};

static void store_some(struct stored *s)
{
    struct err err = ERR_INIT;
    struct page_writer_totals t;
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    CHECK_OK(backend_mem_open(&s->b, &err));
    struct page_writer_options o = {.backend = s->b, .codec = COMPRESS_LZ4, .threads = 1};
    for (size_t i = 0; i < SOME; i++)
        s->numbers[i] = i % 5 == 4 ? 0 : i / 2;
    CHECK_OK(page_writer_open(&o, &w, &err));
    CHECK_OK(sample_give(w, 1, s->numbers, SOME, &err));
    CHECK_OK(page_writer_finish(w, &s->m, &t, &err));
    CHECK_INT(s->m.n_packs, 1);
    pack_key(s->m.packs[0].name, s->key);
    s->bytes = sample_read(s->b, s->key, &s->len);
}

static void done(struct stored *s)
{
    memory_done(&s->m);
    backend_freep(&s->b);
    free(s->bytes);
}

TEST(every_range_of_pages_is_read)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct stored s = {0};
    CLEANUP(page_reader_freep) struct page_reader *r = NULL;
    CLEANUP(mem_freep) char *got = mem_alloc(SOME * MEMORY_PAGE);
    store_some(&s);
    CHECK_OK(page_reader_open(s.b, NULL, &s.m, &r, &err));
    CHECK(page_reader_memory(r) == &s.m);
    for (uint64_t first = 0; first < SOME; first += 17)
        for (uint64_t n = 0; first + n <= SOME; n = n * 2 + 1) {
            CHECK_OK(page_reader_pages(r, 1, first, n, got, &err));
            for (uint64_t i = 0; i < n; i++) {
                char want[MEMORY_PAGE];
                sample_page(s.numbers[first + i], want);
                CHECK(memcmp(got + i * MEMORY_PAGE, want, MEMORY_PAGE) == 0);
            }
        }
}

TEST(pages_that_are_not_there_are_refused)
{
    struct err err = ERR_INIT;
    char page[MEMORY_PAGE];
    CLEANUP(done) struct stored s = {0};
    CLEANUP(page_reader_freep) struct page_reader *r = NULL;
    store_some(&s);
    CHECK_OK(page_reader_open(s.b, NULL, &s.m, &r, &err));
    CHECK_OK(page_reader_pages(r, 1, SOME, 0, page, &err));
    CHECK_RC(page_reader_pages(r, 1, SOME, 1, page, &err), RC_CORRUPT);
    CHECK_RC(page_reader_pages(r, 1, SOME + 1, 0, page, &err), RC_CORRUPT);
    CHECK_RC(page_reader_pages(r, 1, 1, UINT64_MAX, page, &err), RC_CORRUPT);
    CHECK_RC(page_reader_pages(r, 2, 0, 1, page, &err), RC_CORRUPT);
    CHECK_STR(err.msg, "page image 2 has no such pages");
}

TEST(any_flipped_bit_of_a_chunk_is_found_and_the_chunk_named)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct stored s = {0};
    store_some(&s);
    for (size_t i = 0; i < s.m.n_chunks; i++)
        for (unsigned k = 0; k < 20; k++) {
            const struct memory_chunk *c = &s.m.chunks[i];
            size_t at = c->offset + (k * 7919UL) % c->stored;
            CLEANUP(mem_freep)
            char *want = mem_asprintf("memory is damaged: chunk at byte %ju of pack '%s'",
                                      (uintmax_t)c->offset, s.m.packs[0].name);
            s.bytes[at] = (char)(s.bytes[at] ^ (1 << k % 8));
            sample_replace(s.b, s.key, s.bytes, s.len);
            CHECK_RC(sample_check(s.b, &s.m, 1, s.numbers, SOME, &err), RC_CORRUPT);
            CHECK_STR(err.msg, want);
            s.bytes[at] = (char)(s.bytes[at] ^ (1 << k % 8));
        }
}

TEST(a_pack_that_is_missing_or_cut_off_is_named_at_once)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct stored s = {0};
    CLEANUP(page_reader_freep) struct page_reader *r = NULL;
    store_some(&s);
    sample_replace(s.b, s.key, s.bytes, s.len - 1);
    CHECK_RC(page_reader_open(s.b, NULL, &s.m, &r, &err), RC_CORRUPT);
    CHECK(!r && strstr(err.msg, s.m.packs[0].name) && strstr(err.msg, "has been cut off"));
    CHECK_OK(backend_remove(s.b, s.key, &err));
    CHECK_RC(page_reader_open(s.b, NULL, &s.m, &r, &err), RC_CORRUPT);
    CHECK(!r && strstr(err.msg, s.m.packs[0].name) && strstr(err.msg, "is missing"));
}

TEST(a_chunk_that_says_of_itself_what_is_not_so_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct stored s = {0};
    CLEANUP(page_reader_freep) struct page_reader *r = NULL;
    CLEANUP(mem_freep) char *buffers = mem_alloc(2 * MEMORY_CHUNK);
    store_some(&s);
    CHECK_OK(page_reader_open(s.b, NULL, &s.m, &r, &err));
    s.m.chunks[0].pages--;
    CHECK_RC(page_reader_chunk(r, 0, buffers, buffers + MEMORY_CHUNK, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "does not expand to its size"));
    s.m.chunks[0].pages++;
    s.m.chunks[0].codec = COMPRESS_ZSTD;
    CHECK_RC(page_reader_chunk(r, 0, buffers, buffers + MEMORY_CHUNK, &err), RC_CORRUPT);
    s.m.chunks[0].codec = COMPRESS_RAW;
    CHECK_RC(page_reader_chunk(r, 0, buffers, buffers + MEMORY_CHUNK, &err), RC_CORRUPT);
    s.m.chunks[0].codec = COMPRESS_LZ4;
    CHECK_OK(page_reader_chunk(r, 0, buffers, buffers + MEMORY_CHUNK, &err));
}

TEST(failures_of_the_storage_are_told)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct stored s = {0};
    store_some(&s);
    CLEANUP(backend_freep) struct backend *b = broken_open(s.b);
    broken_arm(b, BROKEN_OPEN, 0);
    CHECK_RC(sample_check(b, &s.m, 1, s.numbers, SOME, &err), RC_NO_SPACE);
    for (unsigned n = 0; n < s.m.n_chunks; n++) {
        broken_arm(b, BROKEN_READ, n);
        CHECK_RC(sample_check(b, &s.m, 1, s.numbers, SOME, &err), RC_NO_SPACE);
        CHECK(strstr(err.msg, s.key));
    }
}

TEST(what_is_collected_meanwhile_stays_readable)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct stored s = {0};
    CLEANUP(page_reader_freep) struct page_reader *r = NULL;
    CLEANUP(mem_freep) char *got = mem_alloc(SOME * MEMORY_PAGE);
    store_some(&s);
    CHECK_OK(page_reader_open(s.b, NULL, &s.m, &r, &err));
    CHECK_OK(backend_remove(s.b, s.key, &err));
    CHECK_OK(page_reader_pages(r, 1, 0, SOME, got, &err));
}

TEST(a_pack_that_goes_missing_or_is_cut_off_is_found_by_a_look)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct stored s = {0};
    CLEANUP(page_reader_freep) struct page_reader *r = NULL;
    store_some(&s);
    CHECK_OK(page_reader_open(s.b, NULL, &s.m, &r, &err));
    CHECK_OK(page_reader_check(r, &err));
    sample_replace(s.b, s.key, s.bytes, s.len - 1);
    CHECK_RC(page_reader_check(r, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, s.m.packs[0].name) && strstr(err.msg, "has been cut off"));
    CHECK_OK(backend_remove(s.b, s.key, &err));
    CHECK_RC(page_reader_check(r, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, s.m.packs[0].name) && strstr(err.msg, "is missing"));
}

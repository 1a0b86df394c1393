#include "backend/drivers.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "harness/test.h"
#include "store/pack.h"
#include "store/page_past.h"
#include "store/page_reader.h"
#include "store/page_scan.h"
#include "store/page_writer.h"
#include "unit/store/samples.h"

#include <stdlib.h>
#include <string.h>

#define SOME 1500U /* more chunks than a reader keeps */

/* Checkpoints of one program, one after another. */
struct history {
    struct backend *b;
    struct domain *domain;
    uint8_t *pages; /* as they are now */
    struct memory memory[4];
    struct page_writer_totals totals[4];
    size_t n;
    unsigned reads; /* 0: as many as may be */
};

static void begin(struct history *h)
{
    struct err err = ERR_INIT;
    CHECK_OK(backend_mem_open(&h->b, &err));
    h->pages = mem_alloc(SOME * MEMORY_PAGE);
    for (uint64_t i = 0; i < SOME; i++)
        sample_page(i + 1, h->pages + i * MEMORY_PAGE);
}

static void done(struct history *h)
{
    for (size_t i = 0; i < ARRAY_LEN(h->memory); i++)
        memory_done(&h->memory[i]);
    domain_freep(&h->domain);
    backend_freep(&h->b);
    free(h->pages);
}

/* Write `n` words of a page. */
static void touch(struct history *h, size_t page, size_t n, uint8_t value)
{
    for (size_t i = 0; i < n; i++)
        memset(h->pages + page * MEMORY_PAGE + (i * 24 + page * 8) % MEMORY_PAGE, value, 5);
}

static void touch_all(struct history *h, size_t n, uint8_t value)
{
    for (size_t i = 0; i < SOME; i++)
        touch(h, i, n, (uint8_t)(value + i));
}

static void give(struct history *h, struct page_writer *w, const struct page_past *past)
{
    struct err err = ERR_INIT;
    struct page_input *in = NULL;
    CHECK_OK(page_writer_input(w, 7, SOME, &in, &err));
    if (past) {
        page_writer_like(w, in, 0, 100, 7, 0);
        page_writer_like(w, in, 100, SOME, 7, 100); /* more than there are */
        page_writer_like(w, in, SOME, 1, 7, SOME);
        page_writer_like(w, in, SOME + 1, 1, 8, 0);
    }
    for (unsigned at = 0; at < SOME; at += MEMORY_CHUNK_PAGES) {
        unsigned n = SOME - at < MEMORY_CHUNK_PAGES ? SOME - at : MEMORY_CHUNK_PAGES;
        struct page_block *b = page_writer_take(w, &err);
        CHECK(b);
        memcpy(page_block_data(b), h->pages + at * MEMORY_PAGE, n * MEMORY_PAGE);
        page_writer_give(w, b, in, at, n);
    }
}

/* One more checkpoint.  past: of which one; SIZE_MAX: none */
static void save(struct history *h, size_t past)
{
    struct err err = ERR_INIT;
    CLEANUP(page_reader_freep) struct page_reader *r = NULL;
    CLEANUP(page_past_freep) struct page_past *p = NULL;
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {
        .backend = h->b, .codec = COMPRESS_ZSTD, .threads = 2, .domain = h->domain};
    if (past != SIZE_MAX) {
        CHECK_OK(page_reader_open(h->b, h->domain, &h->memory[past], &r, &err));
        p = page_past_new(r, h->reads ? h->reads - 1 : UINT32_MAX);
        o.past = p;
    }
    CHECK_OK(page_writer_open(&o, &w, &err));
    give(h, w, p);
    CHECK_OK(page_writer_finish(w, &h->memory[h->n], &h->totals[h->n], &err));
    h->n++;
}

/* Whether the last checkpoint holds the pages as they are now; read by its written map. */
static enum rc compare(const struct history *h, struct err *err)
{
    CLEANUP(buf_done) struct buf text = {.max = MEMORY_MAX};
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(page_reader_freep) struct page_reader *r = NULL;
    CLEANUP(mem_freep) uint8_t *got = mem_alloc(SOME * MEMORY_PAGE);
    memory_format(&h->memory[h->n - 1], &text);
    enum rc rc = memory_parse(text.data, text.len, &m, err);
    if (!rc)
        rc = page_reader_open(h->b, h->domain, &m, &r, err);
    if (!rc)
        rc = page_reader_pages(r, 7, 0, SOME, got, err);
    if (!rc && memcmp(got, h->pages, SOME * MEMORY_PAGE) != 0)
        rc = err_set(err, RC_CONFLICT, "other pages");
    return rc ? rc : page_scan_verify(r, NULL, err);
}

static void check(const struct history *h)
{
    struct err err = ERR_INIT;
    CHECK_OK(compare(h, &err));
}

TEST(of_pages_that_changed_a_little_only_that_is_stored)
{
    CLEANUP(done) struct history h = {0};
    begin(&h);
    save(&h, SIZE_MAX);
    touch_all(&h, 3, 50);
    save(&h, 0);
    check(&h);
    CHECK_INT(h.totals[0].changed, 0);
    CHECK_INT(h.totals[1].changed, SOME);
    CHECK(h.totals[1].written < h.totals[0].written / 10);
    struct memory_totals t = memory_totals(&h.memory[1]);
    CHECK(t.changes == SOME && t.different == SOME);
    CHECK(h.memory[1].n_packs > h.memory[0].n_packs); /* the bases' packs are named */
}

TEST(of_a_change_of_a_change_the_base_is_the_whole_page)
{
    CLEANUP(done) struct history h = {0};
    begin(&h);
    save(&h, SIZE_MAX);
    touch_all(&h, 3, 50);
    save(&h, 0);
    for (size_t i = 0; i < SOME; i += 2)
        touch(&h, i, 5, 99);
    save(&h, 1);
    check(&h);
    const struct memory *m = &h.memory[2];
    CHECK(h.totals[2].changed == SOME / 2 && h.totals[2].known == SOME / 2);
    for (size_t i = 0; i < m->n_bases; i++)
        CHECK(memory_has_changes(&m->chunks[m->bases[i].chunk]) &&
              !memory_has_changes(&m->chunks[m->bases[i].of]));
    save(&h, 2); /* nothing has changed */
    check(&h);
    CHECK(h.totals[3].written == 0 && h.totals[3].known == SOME);
}

TEST(of_pages_that_changed_much_all_is_stored)
{
    CLEANUP(done) struct history h = {0};
    begin(&h);
    save(&h, SIZE_MAX);
    touch_all(&h, 100, 50);
    touch(&h, 7, 150, 50); /* more than a quarter of its words */
    sample_page(0, h.pages + 8 * MEMORY_PAGE);
    sample_page(5000, h.pages + 9 * MEMORY_PAGE);
    save(&h, 0);
    check(&h);
    CHECK_INT(h.totals[1].changed, SOME - 3);
    CHECK_INT(h.totals[1].zero, 1);
    sample_page(77, h.pages + 8 * MEMORY_PAGE); /* it was zero: there is no base */
    h.pages[8 * MEMORY_PAGE] ^= 1;
    save(&h, 1);
    check(&h);
    CHECK_INT(h.totals[2].changed, 0);
}

TEST(what_may_not_be_read_is_stored_whole)
{
    CLEANUP(done) struct history h = {.reads = 1}; /* none */
    begin(&h);
    save(&h, SIZE_MAX);
    touch_all(&h, 3, 50);
    save(&h, 0);
    check(&h);
    CHECK_INT(h.totals[1].changed, 0);
}

/* An index does not tell what its changes are of. */
TEST(changes_of_others_are_not_referred_to)
{
    CLEANUP(done) struct history h = {0};
    begin(&h);
    save(&h, SIZE_MAX);
    touch_all(&h, 3, 50);
    save(&h, 0);
    save(&h, SIZE_MAX);
    check(&h);
    CHECK(h.totals[2].known == 0 && h.totals[2].changed == 0 && h.memory[2].n_bases == 0);
}

TEST(encrypted_pages_change_too)
{
    struct err err = ERR_INIT;
    static const struct key_id id = {{1, 2, 3}};
    static const uint8_t key[CIPHER_KEY] = {4, 5, 6};
    CLEANUP(done) struct history h = {0};
    begin(&h);
    CHECK_OK(domain_new(&id, key, &h.domain, &err));
    save(&h, SIZE_MAX);
    touch_all(&h, 3, 50);
    save(&h, 0);
    check(&h);
    CHECK(h.totals[1].changed == SOME && h.memory[1].sealed);
    CHECK(h.totals[1].written < h.totals[0].written / 10);
}

/* The first pack of a checkpoint with one bit of its first chunk flipped. */
static void spoil(struct history *h, size_t checkpoint)
{
    char key[PACK_KEY_LEN];
    size_t len = 0;
    pack_key(h->memory[checkpoint].packs[h->memory[checkpoint].chunks[0].pack].name, key);
    CLEANUP(mem_freep) char *bytes = sample_read(h->b, key, &len);
    bytes[h->memory[checkpoint].chunks[0].offset + 40] ^= 1;
    sample_replace(h->b, key, bytes, len);
}

TEST(a_damaged_base_is_found_by_who_reads_and_not_used_by_who_writes)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct history h = {0};
    begin(&h);
    save(&h, SIZE_MAX);
    touch_all(&h, 3, 50);
    save(&h, 0);
    spoil(&h, 0);
    CHECK_RC(compare(&h, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "memory is damaged: chunk at byte"));
    touch_all(&h, 3, 70);
    save(&h, 1);
    check(&h);
    CHECK_INT(h.totals[2].changed, SOME - h.memory[0].chunks[0].pages);
}

TEST(changes_of_another_page_are_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(done) struct history h = {0};
    begin(&h);
    save(&h, SIZE_MAX);
    touch_all(&h, 3, 50);
    save(&h, 0);
    struct memory *m = &h.memory[1];
    size_t i = 1; /* one of another chunk, which has as many pages */
    while (m->bases[i].of == m->bases[0].of || m->bases[i].of_at || m->bases[0].of_at ||
           m->chunks[m->bases[i].of].pages < m->bases[0].pages)
        CHECK(++i < m->n_bases);
    m->bases[0].of = m->bases[i].of;
    CHECK_RC(compare(&h, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "are of other pages"));
}

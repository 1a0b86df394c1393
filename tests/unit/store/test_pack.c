#include "backend/drivers.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "harness/test.h"
#include "store/pack.h"
#include "store/page_reader.h"
#include "unit/store/broken.h"
#include "unit/store/samples.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static struct backend *open_mem(void)
{
    struct err err = ERR_INIT;
    struct backend *b = NULL;
    CHECK_OK(backend_mem_open(&b, &err));
    return b;
}

/* Pages that say their number, over and over. */
static void text_page(unsigned number, char out[MEMORY_PAGE])
{
    for (size_t i = 0; i < MEMORY_PAGE; i++)
        out[i] = (char)('a' + (number + i / 16) % 26);
}

/* A chunk of `n` pages from number `first` on. */
static enum rc add(struct pack_writer *w, enum compress_codec codec, unsigned first, unsigned n,
                   struct memory_chunk *out, struct err *err)
{
    struct page_name names[MEMORY_CHUNK_PAGES];
    CLEANUP(mem_freep) char *pages = mem_alloc(n * MEMORY_PAGE);
    for (unsigned i = 0; i < n; i++) {
        text_page(first + i, pages + i * MEMORY_PAGE);
        page_name(NULL, pages + i * MEMORY_PAGE, &names[i]);
    }
    return pack_add(w, codec, pages, names, n, NULL, out, err);
}

/* The pack of the golden files: chunks of 2, 1 and 3 pages. */
static enum rc write_sample(struct backend *b, const enum compress_codec codecs[3],
                            char name[MEMORY_PACK_NAME_LEN + 1], struct memory_chunk out[3],
                            struct err *err)
{
    CLEANUP(pack_abortp) struct pack_writer *w = NULL;
    enum rc rc = pack_begin(b, NULL, &w, err);
    if (!rc)
        rc = add(w, codecs[0], 1, 2, &out[0], err);
    if (!rc)
        rc = add(w, codecs[1], 3, 1, &out[1], err);
    if (!rc)
        rc = add(w, codecs[2], 4, 3, &out[2], err);
    if (!rc)
        rc = pack_commit(w, err);
    if (!rc)
        memcpy(name, pack_name(w), MEMORY_PACK_NAME_LEN + 1);
    return rc;
}

static const enum compress_codec mixed[3] = {COMPRESS_RAW, COMPRESS_LZ4, COMPRESS_ZSTD};
static const enum compress_codec raw[3] = {COMPRESS_RAW, COMPRESS_RAW, COMPRESS_RAW};

static void check_names(const struct pack_index *x)
{
    CHECK_INT(x->n_names, 6);
    for (unsigned i = 0; i < 6; i++) {
        char page[MEMORY_PAGE];
        struct page_name want;
        text_page(i + 1, page);
        page_name(NULL, page, &want);
        CHECK(memcmp(&want, &x->names[i], sizeof(want)) == 0);
    }
}

TEST(pages_have_the_same_names_one_by_one_and_all_together)
{
    CLEANUP(mem_freep) uint8_t *data = mem_zalloc(MEMORY_CHUNK);
    const void *pages[MEMORY_CHUNK_PAGES];
    struct page_name one, all[MEMORY_CHUNK_PAGES];
    for (unsigned i = 0; i < MEMORY_CHUNK_PAGES; i++) {
        data[i * MEMORY_PAGE + i] = (uint8_t)(i + 1);
        pages[i] = data + i * MEMORY_PAGE;
    }
    page_name_all(NULL, pages, MEMORY_CHUNK_PAGES, all);
    for (unsigned i = 0; i < MEMORY_CHUNK_PAGES; i++) {
        page_name(NULL, pages[i], &one);
        CHECK(memcmp(&one, &all[i], sizeof(one)) == 0);
    }
}

TEST(what_was_written_is_in_the_index)
{
    struct err err = ERR_INIT;
    char name[MEMORY_PACK_NAME_LEN + 1];
    struct memory_chunk chunks[3];
    uint64_t size = 0;
    size_t len = 0;
    char key[PACK_KEY_LEN];
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CLEANUP(pack_index_done) struct pack_index x = {0};
    CHECK_OK(write_sample(b, mixed, name, chunks, &err));
    CHECK_OK(pack_read_index(b, NULL, name, &x, &size, &err));
    pack_key(name, key);
    CLEANUP(mem_freep) char *bytes = sample_read(b, key, &len);
    CHECK(size == len && x.n_chunks == 3);
    for (size_t i = 0; i < 3; i++) {
        CHECK(digest_equal(&x.chunks[i].digest, &chunks[i].digest));
        CHECK(x.chunks[i].offset == chunks[i].offset && x.chunks[i].stored == chunks[i].stored);
        CHECK(x.chunks[i].pages == chunks[i].pages && x.chunks[i].codec == chunks[i].codec);
    }
    CHECK(chunks[0].stored == 2 * MEMORY_PAGE && chunks[0].codec == COMPRESS_RAW);
    CHECK(chunks[1].stored < MEMORY_PAGE && chunks[1].codec == COMPRESS_LZ4);
    CHECK(chunks[2].stored < MEMORY_PAGE && chunks[2].codec == COMPRESS_ZSTD);
    check_names(&x);
}

TEST(names_of_packs_are_fresh_and_end_with_their_time)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CLEANUP(pack_abortp) struct pack_writer *one = NULL;
    CLEANUP(pack_abortp) struct pack_writer *two = NULL;
    char key[PACK_KEY_LEN];
    CHECK_OK(pack_begin(b, NULL, &one, &err));
    CHECK_OK(pack_begin(b, NULL, &two, &err));
    CHECK(strspn(pack_name(one), "0123456789abcdef") == MEMORY_PACK_NAME_LEN);
    CHECK(strncmp(pack_name(one), pack_name(two), 16) != 0);
    CHECK(pack_newer(pack_name(one), pack_name(two)) <= 0);
    CHECK(pack_newer("00000000000000000000000000000002", "ff000000000000000000000000000001") > 0);
    CHECK(pack_newer("ff000000000000000000000000000001", "00000000000000000000000000000002") < 0);
    pack_key("abcdef00000000000000000000000001", key);
    CHECK_STR(key, "packs/ab/abcdef00000000000000000000000001");
}

TEST(a_pack_that_was_given_up_leaves_nothing)
{
    struct err err = ERR_INIT;
    char *keys[64];
    struct memory_chunk c;
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CLEANUP(pack_abortp) struct pack_writer *w = NULL;
    CHECK_OK(pack_begin(b, NULL, &w, &err));
    CHECK_OK(add(w, COMPRESS_LZ4, 1, 64, &c, &err));
    pack_abortp(&w);
    CHECK_INT(sample_keys(b, "", keys), 0);
}

/* The index counts, too: chunks that compress to nothing must not make it endless. */
TEST(a_pack_is_full_by_its_chunks_or_by_its_index)
{
    struct err err = ERR_INIT;
    struct memory_chunk c;
    struct page_name names[MEMORY_CHUNK_PAGES] = {{{1}}};
    unsigned n = 0;
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CLEANUP(pack_abortp) struct pack_writer *w = NULL;
    CLEANUP(mem_freep) char *pages = mem_zalloc(MEMORY_CHUNK);
    CHECK_OK(pack_begin(b, NULL, &w, &err));
    for (; !pack_is_full(w); n++)
        CHECK_OK(pack_add(w, COMPRESS_ZSTD, pages, names, MEMORY_CHUNK_PAGES, NULL, &c, &err));
    CHECK(pack_size(w) < PACK_TARGET / 2);
    CHECK((uint64_t)n * 64 * PAGE_NAME_LEN <= PACK_INDEX_TARGET + 64UL * PAGE_NAME_LEN);
    CHECK((uint64_t)n * (64UL * PAGE_NAME_LEN + 48) >= PACK_INDEX_TARGET);
}

/* ---- golden files: format 1, byte for byte ---- */

static void read_golden(const char *name, struct buf *out)
{
    struct err err = ERR_INIT;
    const char *root = getenv("CHREK_SOURCE_ROOT");
    if (!root)
        test_skip("CHREK_SOURCE_ROOT is not set");
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/tests/golden/%s", root, name);
    CHECK_OK(fs_read_file(AT_FDCWD, path, 1 << 20, out, &err));
}

static const char fixed[] = "00112233445566778899aabbccddeeff";

static void check_golden(const char *file)
{
    struct err err = ERR_INIT;
    uint64_t size = 0;
    char key[PACK_KEY_LEN], pages[3 * MEMORY_PAGE];
    CLEANUP(buf_done) struct buf golden = BUF_INIT;
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CLEANUP(pack_index_done) struct pack_index x = {0};
    read_golden(file, &golden);
    pack_key(fixed, key);
    CHECK_OK(backend_put(b, key, golden.data, golden.len, &err));
    CHECK_OK(pack_read_index(b, NULL, fixed, &x, &size, &err));
    CHECK(size == golden.len && x.n_chunks == 3);
    check_names(&x);
    for (unsigned i = 0, page = 1; i < 3; i++) {
        const struct memory_chunk *c = &x.chunks[i];
        struct digest d;
        digest_of(golden.data + c->offset, c->stored, &d);
        CHECK(digest_equal(&d, &c->digest));
        CHECK_OK(compress_expand((enum compress_codec)c->codec, golden.data + c->offset, c->stored,
                                 pages, c->pages * MEMORY_PAGE, &err));
        for (unsigned k = 0; k < c->pages; k++, page++) {
            char want[MEMORY_PAGE];
            text_page(page, want);
            CHECK(memcmp(pages + k * MEMORY_PAGE, want, MEMORY_PAGE) == 0);
        }
    }
}

TEST(golden_packs_are_read)
{
    check_golden("pack-1");
    check_golden("pack-1-raw");
}

TEST(the_golden_pack_is_what_is_written)
{
    struct err err = ERR_INIT;
    char name[MEMORY_PACK_NAME_LEN + 1], key[PACK_KEY_LEN];
    struct memory_chunk chunks[3];
    size_t len = 0;
    CLEANUP(buf_done) struct buf golden = BUF_INIT;
    CLEANUP(backend_freep) struct backend *b = open_mem();
    read_golden("pack-1-raw", &golden);
    CHECK_OK(write_sample(b, raw, name, chunks, &err));
    pack_key(name, key);
    CLEANUP(mem_freep) char *bytes = sample_read(b, key, &len);
    CHECK(len == golden.len && memcmp(bytes, golden.data, len) == 0);
}

/* ---- changes ---- */

/* The pack of the golden file: pages 1 and 2, and what changes when their first byte becomes '!'.
 */
static enum rc write_changes(struct backend *b, char name[MEMORY_PACK_NAME_LEN + 1],
                             struct memory_chunk out[2], struct err *err)
{
    CLEANUP(pack_abortp) struct pack_writer *w = NULL;
    CLEANUP(mem_freep) char *pages = mem_zalloc(2 * MEMORY_PAGE);
    struct page_name names[2];
    struct digest whole;
    enum rc rc = pack_begin(b, NULL, &w, err);
    if (!rc)
        rc = add(w, COMPRESS_RAW, 1, 2, &out[0], err);
    for (unsigned i = 0; i < 2; i++) {
        text_page(i + 1, pages + i * MEMORY_PAGE);
        pages[i * MEMORY_PAGE] = '!';
        page_name(NULL, pages + i * MEMORY_PAGE, &names[i]);
    }
    digest_of(pages, 2 * MEMORY_PAGE, &whole);
    memset(pages, 0, 2 * MEMORY_PAGE);
    memset(pages, 'b', 8);
    memset(pages + MEMORY_PAGE, 'c', 8);
    pages[0] = pages[MEMORY_PAGE] = '!';
    if (!rc)
        rc = pack_add(w, COMPRESS_LZ4, pages, names, 2, &whole, &out[1], err);
    if (!rc)
        rc = pack_commit(w, err);
    if (!rc)
        memcpy(name, pack_name(w), MEMORY_PACK_NAME_LEN + 1);
    return rc;
}

static void check_changes(struct backend *b, const char *name)
{
    struct err err = ERR_INIT;
    uint64_t size = 0;
    char page[MEMORY_PAGE];
    CLEANUP(pack_index_done) struct pack_index x = {0};
    CLEANUP(mem_freep) char *buffers = mem_alloc(2 * MEMORY_CHUNK);
    CLEANUP(page_reader_freep) struct page_reader *r = NULL;
    CHECK_OK(pack_read_index(b, NULL, name, &x, &size, &err));
    CHECK(x.n_chunks == 2 && !memory_has_changes(&x.chunks[0]));
    CHECK_INT(x.chunks[1].codec, MEMORY_CHANGES | COMPRESS_LZ4);
    struct memory_pack pack = {.size = size};
    struct memory_base base = {.chunk = 1, .of = 0, .pages = 2};
    struct memory m = {.packs = &pack,
                       .chunks = x.chunks,
                       .bases = &base,
                       .n_packs = 1,
                       .n_chunks = 2,
                       .n_bases = 1};
    memcpy(pack.name, name, sizeof(pack.name));
    CHECK_OK(page_reader_open(b, NULL, &m, &r, &err));
    CHECK_OK(page_reader_chunk(r, 1, buffers, buffers + MEMORY_CHUNK, &err));
    for (unsigned i = 0; i < 2; i++) {
        text_page(i + 1, page);
        page[0] = '!';
        CHECK(memcmp(page, buffers + MEMORY_CHUNK + i * MEMORY_PAGE, MEMORY_PAGE) == 0);
    }
}

TEST(changes_are_written_and_read)
{
    struct err err = ERR_INIT;
    char name[MEMORY_PACK_NAME_LEN + 1], key[PACK_KEY_LEN];
    struct memory_chunk chunks[2];
    size_t len = 0;
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CHECK_OK(write_changes(b, name, chunks, &err));
    check_changes(b, name);
    pack_key(name, key);
    CLEANUP(mem_freep) char *bytes = sample_read(b, key, &len);
    CHECK_INT(bytes[len - 16], 3); /* an older chrek sees that it is a newer format */
}

TEST(the_golden_pack_with_changes_is_read)
{
    struct err err = ERR_INIT;
    static const char name[] = "00000000000000000000000000000003";
    char key[PACK_KEY_LEN];
    CLEANUP(buf_done) struct buf golden = BUF_INIT;
    CLEANUP(backend_freep) struct backend *b = open_mem();
    read_golden("pack-3", &golden);
    pack_key(name, key);
    CHECK_OK(backend_put(b, key, golden.data, golden.len, &err));
    check_changes(b, name);
}

TEST(changes_without_their_digest_are_refused)
{
    struct err err = ERR_INIT;
    struct digest whole;
    char out[MEMORY_PAGE] = "";
    struct memory_chunk c = {.stored = DIGEST_LEN, .pages = 1, .codec = 0x100 | COMPRESS_RAW};
    CHECK_RC(pack_expand_chunk(&c, out, out, &whole, &err), RC_CORRUPT);
}

TEST(a_newer_pack_is_refused_as_such)
{
    struct err err = ERR_INIT;
    char name[MEMORY_PACK_NAME_LEN + 1], key[PACK_KEY_LEN];
    struct memory_chunk chunks[2];
    size_t len = 0;
    uint64_t size = 0;
    struct pack_index x;
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CHECK_OK(write_changes(b, name, chunks, &err));
    pack_key(name, key);
    CLEANUP(mem_freep) char *bytes = sample_read(b, key, &len);
    bytes[len - 16] = 5;
    sample_replace(b, key, bytes, len);
    CHECK_RC(pack_read_index(b, NULL, name, &x, &size, &err), RC_UNSUPPORTED);
}

/* ---- damage ---- */

TEST(a_damaged_index_is_refused)
{
    struct err err = ERR_INIT;
    char name[MEMORY_PACK_NAME_LEN + 1], key[PACK_KEY_LEN];
    struct memory_chunk chunks[3];
    size_t len = 0;
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CHECK_OK(write_sample(b, mixed, name, chunks, &err));
    pack_key(name, key);
    CLEANUP(mem_freep) char *bytes = sample_read(b, key, &len);
    for (size_t at = chunks[2].offset + chunks[2].stored; at < len; at++) {
        struct pack_index x = {.n_chunks = 99};
        uint64_t size = 0;
        bytes[at] ^= 1;
        sample_replace(b, key, bytes, len);
        enum rc rc = pack_read_index(b, NULL, name, &x, &size, &err);
        if (rc != RC_CORRUPT && rc != RC_UNSUPPORTED)
            test_fail(__FILE__, __LINE__, "byte %zu of %zu: %s", at, len, rc_name(rc));
        CHECK(x.n_chunks == 99 && strstr(err.msg, name));
        bytes[at] ^= 1;
    }
}

TEST(a_pack_that_was_cut_off_is_refused)
{
    struct err err = ERR_INIT;
    char name[MEMORY_PACK_NAME_LEN + 1], key[PACK_KEY_LEN];
    struct memory_chunk chunks[3];
    size_t len = 0;
    struct pack_index x;
    uint64_t size = 0;
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CHECK_OK(write_sample(b, mixed, name, chunks, &err));
    pack_key(name, key);
    CLEANUP(mem_freep) char *bytes = sample_read(b, key, &len);
    for (size_t cut = 0; cut < len; cut += cut < len - 200 ? 97 : 1) {
        sample_replace(b, key, bytes, cut);
        CHECK_RC(pack_read_index(b, NULL, name, &x, &size, &err), RC_CORRUPT);
    }
    CHECK_OK(backend_remove(b, key, &err));
    CHECK_RC(pack_read_index(b, NULL, name, &x, &size, &err), RC_NOT_FOUND);
}

/* An index of two chunks, of 2 and of 1 page, 100 and 4096 bytes. */
static size_t make_index(uint8_t out[2 * 48 + 3 * PAGE_NAME_LEN])
{
    memset(out, 0, 2 * 48 + 3 * PAGE_NAME_LEN);
    out[32 + 8] = 100;
    out[32 + 12] = 2;
    out[32 + 14] = COMPRESS_LZ4;
    out[48 + 32] = 100;
    out[48 + 32 + 8 + 1] = 16;
    out[48 + 32 + 12] = 1;
    return 2 * 48 + 3 * PAGE_NAME_LEN;
}

TEST(an_index_that_contradicts_itself_is_refused)
{
    static const struct {
        const char *what;
        size_t at;
        uint8_t value;
        uint64_t n_chunks, n_names, data_len;
    } cases[] = {
        {"more chunks", 0, 0, 3, 3, 4196},
        {"endless chunks", 0, 0, UINT64_MAX, 3, 4196},
        {"fewer names", 0, 0, 2, 2, 4196},
        {"endless names", 0, 0, 2, UINT64_MAX, 4196},
        {"one name for another chunk", 0, 0, 0, 7, 4196},
        {"bytes behind the chunks", 0, 0, 2, 3, 4197},
        {"chunks behind the bytes", 0, 0, 2, 3, 4195},
        {"a hole", 48 + 32, 101, 2, 3, 4196},
        {"a chunk of nothing", 32 + 8, 0, 2, 3, 4196},
        {"a chunk without pages", 32 + 12, 0, 2, 3, 4196},
        {"a chunk of other pages", 32 + 12, 3, 2, 3, 4196},
        {"a chunk of 65 pages", 32 + 12, 65, 2, 3, 4196},
        {"a codec", 32 + 14, COMPRESS_COUNT_, 2, 3, 4196},
        {"a chunk longer than one may be", 48 + 32 + 8 + 3, 1, 2, 3, (1 << 24) + 4196},
    };
    struct err err = ERR_INIT;
    uint8_t bytes[2 * 48 + 3 * PAGE_NAME_LEN];
    size_t len = make_index(bytes);
    CLEANUP(pack_index_done) struct pack_index good = {0};
    CHECK_OK(pack_index_parse(bytes, len, 2, 3, 4196, &good, &err));
    CHECK(good.chunks[1].offset == 100 && good.chunks[1].stored == 4096);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct pack_index x = {.n_chunks = 99};
        (void)make_index(bytes);
        if (cases[i].at)
            bytes[cases[i].at] = cases[i].value;
        enum rc rc = pack_index_parse(bytes, len, cases[i].n_chunks, cases[i].n_names,
                                      cases[i].data_len, &x, &err);
        if (rc != RC_CORRUPT || x.n_chunks != 99)
            test_fail(__FILE__, __LINE__, "%s: %s", cases[i].what, rc_name(rc));
    }
}

TEST(each_failure_of_the_storage_is_told_and_leaves_nothing)
{
    CLEANUP(backend_freep) struct backend *inner = open_mem();
    CLEANUP(backend_freep) struct backend *b = broken_open(inner);
    for (enum broken_call call = BROKEN_BEGIN; call <= BROKEN_COMMIT; call++)
        for (unsigned n = 0;; n++) {
            struct err err = ERR_INIT;
            char name[MEMORY_PACK_NAME_LEN + 1], *keys[64];
            struct memory_chunk chunks[3];
            broken_arm(b, call, n);
            enum rc rc = write_sample(b, raw, name, chunks, &err);
            if (broken_calls(b, call) <= n) {
                CHECK_OK(rc);
                break;
            }
            CHECK_RC(rc, RC_NO_SPACE);
            CHECK(strstr(err.msg, "it is full"));
            size_t left = sample_keys(inner, "", keys);
            for (size_t i = 0; i < left; i++)
                mem_freep(&keys[i]);
            CHECK_INT(left, call == BROKEN_BEGIN ? 0 : call - BROKEN_BEGIN);
        }
}

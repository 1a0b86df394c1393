#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "harness/test.h"
#include "store/memory.h"

#include <fcntl.h>
#include <stdlib.h>

/* Two packs, three chunks, two streams: what tests/golden/memory-1 holds. */
static struct memory_pack packs[] = {{"0123456789abcdef0123456789abcdef", 1000000},
                                     {"ffffffffffffffffffffffffffffffff", 70000}};
static struct memory_chunk chunks[] = {
    {.digest = {{1}}, .offset = 0, .stored = 1234, .pack = 0, .pages = 64, .codec = COMPRESS_LZ4},
    {.digest = {{2}}, .offset = 1234, .stored = 4096, .pack = 0, .pages = 1, .codec = COMPRESS_RAW},
    {.digest = {{3}}, .offset = 4, .stored = 65000, .pack = 1, .pages = 33, .codec = COMPRESS_ZSTD},
};
static struct memory_extent extents[] = {
    {.page = 0, .pages = 60, .chunk = 0, .at = 4},
    {.page = 60, .pages = 1000, .chunk = MEMORY_ZERO},
    {.page = 1060, .pages = 1, .chunk = 1},
    {.page = 1061, .pages = 33, .chunk = 2},
    {.page = 0, .pages = 2, .chunk = 2, .at = 31},
};
static struct memory_stream streams[] = {
    {.id = 1, .pages = 1094, .first = 0, .n = 4},
    {.id = 1 | MEMORY_LAZY, .pages = 2, .first = 4, .n = 1},
};
static const struct memory sample = {.packs = packs,
                                     .chunks = chunks,
                                     .streams = streams,
                                     .extents = extents,
                                     .n_packs = ARRAY_LEN(packs),
                                     .n_chunks = ARRAY_LEN(chunks),
                                     .n_streams = ARRAY_LEN(streams),
                                     .n_extents = ARRAY_LEN(extents)};

/* ---- rows, as they were written until format 4 ---- */

static void put(struct buf *b, uint64_t value, size_t bytes)
{
    uint8_t raw[8];
    for (size_t i = 0; i < bytes; i++)
        raw[i] = (uint8_t)(value >> (8 * i));
    buf_add(b, raw, bytes);
}

static void put_rows(const struct memory *m, struct buf *out)
{
    for (size_t i = 0; i < m->n_packs; i++) {
        buf_add(out, m->packs[i].name, MEMORY_PACK_NAME_LEN);
        put(out, m->packs[i].size, 8);
    }
    for (size_t i = 0; i < m->n_chunks; i++) {
        const struct memory_chunk *c = &m->chunks[i];
        buf_add(out, c->digest.bytes, DIGEST_LEN);
        put(out, c->offset, 8);
        put(out, c->stored, 4);
        put(out, c->pack, 4);
        put(out, c->pages, 2);
        put(out, c->codec, 2);
    }
    for (size_t i = 0; i < m->n_streams; i++) {
        put(out, m->streams[i].id, 8);
        put(out, m->streams[i].pages, 8);
        put(out, m->streams[i].first, 8);
        put(out, m->streams[i].n, 8);
    }
    for (size_t i = 0; i < m->n_extents; i++) {
        put(out, m->extents[i].page, 8);
        put(out, m->extents[i].pages, 4);
        put(out, m->extents[i].chunk, 4);
        put(out, m->extents[i].at, 8);
    }
    for (size_t i = 0; i < m->n_bases; i++) {
        put(out, m->bases[i].chunk, 4);
        put(out, m->bases[i].of, 4);
        put(out, m->bases[i].at, 2);
        put(out, m->bases[i].pages, 2);
        put(out, m->bases[i].of_at, 2);
        put(out, 0, 2);
    }
}

/* codec: of the rows, where there are bases */
static void format_rows(const struct memory *m, enum compress_codec codec, struct buf *out)
{
    CLEANUP(buf_done) struct buf rows = BUF_INIT;
    put_rows(m, &rows);
    CLEANUP(mem_freep) char *small = mem_alloc(compress_bound(rows.len));
    size_t len = rows.len;
    if (codec != COMPRESS_RAW)
        codec = compress_block(codec, rows.data, rows.len, small, &len);
    buf_add(out, "chrekmem", 8);
    put(out, 1U + m->sealed + (m->n_bases ? 2U : 0), 4);
    put(out, MEMORY_PAGE, 4);
    put(out, m->n_packs, 8);
    put(out, m->n_chunks, 8);
    put(out, m->n_streams, 8);
    put(out, m->n_extents, 8);
    put(out, m->n_bases, 8);
    put(out, codec, 8);
    buf_add(out, codec == COMPRESS_RAW ? rows.data : small, len);
}

static void check_sample(const struct memory *m)
{
    CHECK(m->n_packs == 2 && m->n_chunks == 3 && m->n_streams == 2 && m->n_extents == 5);
    CHECK_STR(m->packs[1].name, packs[1].name);
    CHECK_INT(m->packs[0].size, 1000000);
    for (size_t i = 0; i < m->n_chunks; i++) {
        CHECK(digest_equal(&m->chunks[i].digest, &chunks[i].digest));
        CHECK(m->chunks[i].offset == chunks[i].offset && m->chunks[i].stored == chunks[i].stored);
        CHECK(m->chunks[i].pack == chunks[i].pack && m->chunks[i].pages == chunks[i].pages);
        CHECK(m->chunks[i].codec == chunks[i].codec);
    }
    for (size_t i = 0; i < m->n_extents; i++) {
        CHECK(m->extents[i].page == extents[i].page && m->extents[i].pages == extents[i].pages);
        CHECK(m->extents[i].chunk == extents[i].chunk && m->extents[i].at == extents[i].at);
    }
    for (size_t i = 0; i < m->n_streams; i++)
        CHECK(m->streams[i].id == streams[i].id && m->streams[i].pages == streams[i].pages &&
              m->streams[i].first == streams[i].first && m->streams[i].n == streams[i].n);
}

TEST(what_was_formatted_is_parsed)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(memory_done) struct memory m = {0};
    memory_format(&sample, &text);
    CHECK_OK(memory_parse(text.data, text.len, &m, &err));
    check_sample(&m);
}

TEST(a_map_of_nothing_is_one)
{
    struct err err = ERR_INIT;
    static const struct memory nothing = {0};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(memory_done) struct memory m = {0};
    memory_format(&nothing, &text);
    CHECK_INT(text.len, 64);
    CHECK_OK(memory_parse(text.data, text.len, &m, &err));
    CHECK(m.n_packs == 0 && m.n_extents == 0 && !memory_stream(&m, 1));
}

/* Byte for byte what a released chrek has written. */
static void read_golden(const char *name, struct buf *out)
{
    struct err err = ERR_INIT;
    const char *root = getenv("CHREK_SOURCE_ROOT");
    if (!root)
        test_skip("CHREK_SOURCE_ROOT is not set");
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/tests/golden/%s", root, name);
    CHECK_OK(fs_read_file(AT_FDCWD, path, MEMORY_MAX, out, &err));
}

TEST(the_golden_map_of_rows_is_read)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf golden = BUF_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(memory_done) struct memory m = {0};
    read_golden("memory-1", &golden);
    format_rows(&sample, COMPRESS_RAW, &text);
    CHECK(golden.len == text.len && memcmp(golden.data, text.data, text.len) == 0);
    CHECK_OK(memory_parse(golden.data, golden.len, &m, &err));
    check_sample(&m);
}

/* Offsets in the sample's bytes. */
enum {
    AT_FORMAT = 8,
    AT_PAGE = 12,
    AT_N_PACKS = 16,
    AT_N_CHUNKS = 24,
    AT_N_STREAMS = 32,
    AT_N_EXTENTS = 40,
    AT_REST = 48,
    AT_PACKS = 64,
    AT_CHUNKS = AT_PACKS + 2 * 40,
    AT_STREAMS = AT_CHUNKS + 3 * 52,
    AT_EXTENTS = AT_STREAMS + 2 * 32,
};

TEST(what_contradicts_itself_is_refused)
{
    static const struct {
        const char *what;
        size_t at, len;
        uint64_t value;
    } cases[] = {
        {"magic", 0, 1, 'C'},
        {"format 0", AT_FORMAT, 4, 0},
        {"page size", AT_PAGE, 4, 16384},
        {"a pack fewer", AT_N_PACKS, 8, 1},
        {"packs without end", AT_N_PACKS, 8, UINT64_MAX / 40 + 2},
        {"a chunk more", AT_N_CHUNKS, 8, 4},
        {"chunks without end", AT_N_CHUNKS, 8, UINT64_MAX},
        {"a stream more", AT_N_STREAMS, 8, 3},
        {"an extent more", AT_N_EXTENTS, 8, 6},
        {"reserved bytes", AT_REST + 15, 1, 1},
        {"a pack's name", AT_PACKS + 3, 1, '/'},
        {"a pack's name in capitals", AT_PACKS + 10, 1, 'A'},
        {"a pack's name that ends", AT_PACKS + 31, 1, 0},
        {"a pack that is shorter than its chunks", AT_PACKS + 32, 8, 1234 + 4095},
        {"a chunk behind its pack", AT_CHUNKS + 32, 8, UINT64_MAX},
        {"a chunk that reaches out of its pack", AT_CHUNKS + 32, 8, 999999},
        {"a chunk of nothing", AT_CHUNKS + 40, 4, 0},
        {"a chunk that is longer stored", AT_CHUNKS + 40, 4, MEMORY_CHUNK + 1},
        {"a chunk of no pack", AT_CHUNKS + 44, 4, 2},
        {"a chunk without pages", AT_CHUNKS + 48, 2, 0},
        {"a chunk of 65 pages", AT_CHUNKS + 48, 2, 65},
        {"a codec", AT_CHUNKS + 50, 2, COMPRESS_COUNT_},
        {"a stream's id", AT_STREAMS, 8, (uint64_t)1 << 32},
        {"streams out of order", AT_STREAMS, 8, 0xffffffff},
        {"a stream twice", AT_STREAMS + 32, 8, 1},
        {"a stream with other pages", AT_STREAMS + 8, 8, 1095},
        {"a stream's first extent", AT_STREAMS + 16, 8, 6},
        {"a stream's extents", AT_STREAMS + 24, 8, UINT64_MAX},
        {"a gap", AT_EXTENTS + 24, 8, 61},
        {"an extent without pages", AT_EXTENTS + 8, 4, 0},
        {"an extent that is longer than its chunk", AT_EXTENTS + 8, 4, 61},
        {"an extent of no chunk", AT_EXTENTS + 12, 4, 3},
        {"an extent behind its chunk", AT_EXTENTS + 16, 8, 5},
        {"an extent far behind its chunk", AT_EXTENTS + 16, 8, (uint64_t)1 << 32},
        {"a zero extent inside a chunk", AT_EXTENTS + 24 + 16, 8, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        struct memory m = {.n_packs = 99};
        format_rows(&sample, COMPRESS_RAW, &text);
        for (size_t k = 0; k < cases[i].len; k++)
            text.data[cases[i].at + k] = (char)(cases[i].value >> (8 * k));
        enum rc rc = memory_parse(text.data, text.len, &m, &err);
        if (rc != RC_CORRUPT || m.n_packs != 99)
            test_fail(__FILE__, __LINE__, "%s: %s", cases[i].what, rc_name(rc));
    }
}

/* ---- changes ---- */

/* The sample with two more chunks, of changes to pages of the first and the third: what
 * tests/golden/memory-3 holds, where the tables are not compressed. */
static const struct memory_chunk more_chunks[] = {
    {.digest = {{4}}, .offset = 5330, .stored = 300, .pack = 0, .pages = 3, .codec = 0x102},
    {.digest = {{5}}, .offset = 5630, .stored = 99, .pack = 0, .pages = 1, .codec = 0x101},
};
static struct memory_base bases[] = {
    {.chunk = 3, .of = 0, .at = 0, .pages = 2, .of_at = 62},
    {.chunk = 3, .of = 2, .at = 2, .pages = 1, .of_at = 0},
    {.chunk = 4, .of = 0, .at = 0, .pages = 1, .of_at = 7},
};
static struct memory_chunk all_chunks[5];

static struct memory with_changes(void)
{
    struct memory m = sample;
    memcpy(all_chunks, chunks, sizeof(chunks));
    memcpy(all_chunks + 3, more_chunks, sizeof(more_chunks));
    m.chunks = all_chunks;
    m.n_chunks = 5;
    m.bases = bases;
    m.n_bases = 3;
    return m;
}

static void check_changes(const struct memory *m)
{
    const struct memory_base *list = NULL;
    CHECK(m->n_bases == 3 && m->n_chunks == 5);
    CHECK(memory_bases(m, 0, &list) == 0 && memory_bases(m, 4, &list) == 1);
    CHECK(list->of == 0 && list->of_at == 7);
    CHECK(memory_bases(m, 3, &list) == 2 && list[1].of == 2 && list[1].at == 2);
    CHECK(memory_has_changes(&m->chunks[3]) && !memory_has_changes(&m->chunks[2]));
}

TEST(a_map_with_changes_is_parsed_as_it_was_formatted)
{
    struct err err = ERR_INIT;
    struct memory m = with_changes();
    for (unsigned sealed = 0; sealed < 2; sealed++) {
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        CLEANUP(memory_done) struct memory got = {0};
        m.sealed = sealed;
        memory_format(&m, &text);
        CHECK_INT(text.data[AT_FORMAT], 7 + sealed);
        CHECK_OK(memory_parse(text.data, text.len, &got, &err));
        CHECK_INT(got.sealed, sealed);
        check_changes(&got);
    }
}

TEST(the_golden_map_of_rows_with_changes_is_read)
{
    struct err err = ERR_INIT;
    struct memory want = with_changes();
    CLEANUP(buf_done) struct buf golden = BUF_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(memory_done) struct memory m = {0};
    read_golden("memory-3", &golden);
    format_rows(&want, COMPRESS_RAW, &text);
    CHECK(golden.len == text.len && memcmp(golden.data, text.data, text.len) == 0);
    CHECK_OK(memory_parse(golden.data, golden.len, &m, &err));
    check_changes(&m);
}

TEST(rows_that_are_compressed_are_read)
{
    struct memory want = with_changes();
    for (enum compress_codec c = COMPRESS_LZ4; c < COMPRESS_COUNT_; c++) {
        struct err err = ERR_INIT;
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        CLEANUP(memory_done) struct memory m = {0};
        format_rows(&want, c, &text);
        CHECK_INT(text.data[AT_REST + 8], c);
        CHECK_OK(memory_parse(text.data, text.len, &m, &err));
        check_changes(&m);
    }
}

TEST(changes_that_contradict_themselves_are_refused)
{
    enum { CHUNKS = 64 + 2 * 40, BASES = CHUNKS + 5 * 52 + 2 * 32 + 5 * 24 };
    static const struct {
        const char *what;
        size_t at, len;
        uint64_t value;
    } cases[] = {
        {"no compression that we know", AT_REST + 8, 8, COMPRESS_COUNT_},
        {"tables that are no zstd", AT_REST + 8, 8, COMPRESS_ZSTD},
        {"no changes at all", AT_REST, 8, 0},
        {"a base fewer", AT_REST, 8, 2},
        {"bases without end", AT_REST, 8, UINT64_MAX},
        {"more than any map has", AT_REST, 8, (uint64_t)1 << 27},
        {"format 1 with bases", AT_FORMAT, 4, 1},
        {"changes without bases", CHUNKS + 2 * 52 + 50, 2, 0x101},
        {"bases without changes", CHUNKS + 4 * 52 + 50, 2, COMPRESS_LZ4},
        {"changes by an unknown codec", CHUNKS + 4 * 52 + 50, 2, 0x100 | COMPRESS_COUNT_},
        {"another flag", CHUNKS + 4 * 52 + 50, 2, 0x300},
        {"a base of no pages", BASES + 10, 2, 0},
        {"a base of more pages than are changed", BASES + 16 + 10, 2, 2},
        {"a gap", BASES + 16 + 8, 2, 1},
        {"of a chunk that is not there", BASES + 4, 4, 5},
        {"of changes", BASES + 32 + 4, 4, 3},
        {"of pages behind the chunk", BASES + 12, 2, 63},
        {"of pages far behind the chunk", BASES + 12, 2, 0xffff},
        {"of another chunk's changes", BASES + 32, 4, 3},
        {"a reserved byte", BASES + 15, 1, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        struct memory m = {.n_packs = 99};
        struct memory changed = with_changes();
        format_rows(&changed, COMPRESS_RAW, &text);
        for (size_t k = 0; k < cases[i].len; k++)
            text.data[cases[i].at + k] = (char)(cases[i].value >> (8 * k));
        enum rc rc = memory_parse(text.data, text.len, &m, &err);
        if (rc != RC_CORRUPT || m.n_packs != 99)
            test_fail(__FILE__, __LINE__, "%s: %s", cases[i].what, rc_name(rc));
    }
}

/* ---- columns ---- */

/* The map as it is written, with its columns as they are: what tests/golden/memory-7 holds. */
static void format_columns(const struct memory *m, struct buf *out)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    uint64_t len = 0;
    memory_format(m, &text);
    CHECK_INT(text.data[AT_REST + 8], COMPRESS_ZSTD);
    CHECK(compress_frame_size(text.data + 64, text.len - 64, &len));
    CLEANUP(mem_freep) char *columns = mem_alloc((size_t)len);
    CHECK_OK(
        compress_expand(COMPRESS_ZSTD, text.data + 64, text.len - 64, columns, (size_t)len, &err));
    text.data[AT_REST + 8] = COMPRESS_RAW;
    buf_add(out, text.data, 64);
    buf_add(out, columns, (size_t)len);
}

static void check_golden_columns(const char *name, const struct memory *want,
                                 void (*check)(const struct memory *))
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf golden = BUF_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(memory_done) struct memory m = {0};
    read_golden(name, &golden);
    format_columns(want, &text);
    CHECK(golden.len == text.len && memcmp(golden.data, text.data, text.len) == 0);
    CHECK_OK(memory_parse(golden.data, golden.len, &m, &err));
    check(&m);
}

TEST(the_golden_maps_of_columns_are_read_and_written)
{
    struct memory changed = with_changes();
    check_golden_columns("memory-5", &sample, check_sample);
    check_golden_columns("memory-7", &changed, check_changes);
}

/* Any byte that is another is refused, or a map that is one all the same, and has these bytes. */
TEST(columns_have_one_form)
{
    struct memory changed = with_changes();
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    format_columns(&changed, &text);
    unsigned refused = 0, accepted = 0;
    for (size_t at = 16; at < text.len; at++)
        for (unsigned bit = 0; bit < 8; bit++) {
            CLEANUP(memory_done) struct memory m = {0};
            CLEANUP(buf_done) struct buf again = BUF_INIT;
            text.data[at] = (char)(text.data[at] ^ 1 << bit);
            if (memory_parse(text.data, text.len, &m, NULL) == RC_OK) {
                format_columns(&m, &again);
                CHECK(again.len == text.len && memcmp(again.data, text.data, text.len) == 0);
                accepted++;
            } else {
                refused++;
            }
            text.data[at] = (char)(text.data[at] ^ 1 << bit);
        }
    CHECK(refused > 0 && accepted > 0); /* digests are any bytes */
}

TEST(columns_that_contradict_themselves_are_refused)
{
    static const struct {
        const char *what;
        size_t at, len;
        uint64_t value;
    } cases[] = {
        {"no compression that we know", AT_REST + 8, 8, COMPRESS_COUNT_},
        {"lz4, which does not say what it expands to", AT_REST + 8, 8, COMPRESS_LZ4},
        {"columns that are no zstd", AT_REST + 8, 8, COMPRESS_ZSTD},
        {"no bases, in a format that has them", AT_REST, 8, 0},
        {"bases, in a format that has none", AT_FORMAT, 4, 5},
        {"bases without end", AT_REST, 8, UINT64_MAX},
        {"as many chunks as wrap around", AT_N_CHUNKS, 8, UINT64_MAX / 37 + 1},
        {"a chunk more", AT_N_CHUNKS, 8, 6},
        {"an extent fewer", AT_N_EXTENTS, 8, 4},
    };
    struct memory changed = with_changes();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        struct memory m = {.n_packs = 99};
        format_columns(&changed, &text);
        for (size_t k = 0; k < cases[i].len; k++)
            text.data[cases[i].at + k] = (char)(cases[i].value >> (8 * k));
        enum rc rc = memory_parse(text.data, text.len, &m, &err);
        if (rc != RC_CORRUPT || m.n_packs != 99)
            test_fail(__FILE__, __LINE__, "%s: %s", cases[i].what, rc_name(rc));
    }
}

TEST(a_change_makes_the_page_of_its_base)
{
    uint64_t base[MEMORY_WORDS], page[MEMORY_WORDS], change[MEMORY_WORDS];
    for (size_t i = 0; i < MEMORY_WORDS; i++)
        base[i] = page[i] = i % 7 ? i * 0x0123456789abcdefULL : 0;
    CHECK_INT(memory_change(page, base, change), 0);
    CHECK(change[0] == 0 && memcmp(change, change + 1, sizeof(change) - 8) == 0);
    page[0] = 5;    /* from 0 */
    page[1] = 0;    /* to 0 */
    page[8] ^= 255; /* some byte */
    page[9] = base[10];
    CHECK_INT(memory_change(page, base, change), 4);
    CHECK(change[0] == 5 && change[1] == base[1] && change[2] == 0 && change[8] == page[8]);
    memory_apply(change, base);
    CHECK(memcmp(change, page, sizeof(page)) == 0);
}

TEST(a_newer_format_is_refused_as_such)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    struct memory m;
    memory_format(&sample, &text);
    text.data[AT_FORMAT] = 9;
    CHECK_RC(memory_parse(text.data, text.len, &m, &err), RC_UNSUPPORTED);
    CHECK(strstr(err.msg, "format 9"));
}

TEST(a_map_that_was_cut_off_or_continued_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    struct memory m;
    memory_format(&sample, &text);
    for (size_t len = 0; len < text.len; len++) {
        CLEANUP(mem_freep) char *exact = mem_alloc(len + 1);
        memcpy(exact, text.data, len);
        CHECK_RC(memory_parse(exact, len, &m, &err), RC_CORRUPT);
    }
    buf_add(&text, "", 1);
    CHECK_RC(memory_parse(text.data, text.len, &m, &err), RC_CORRUPT);
}

TEST(streams_and_extents_are_found)
{
    CHECK(memory_stream(&sample, 1) == &streams[0]);
    CHECK(memory_stream(&sample, 1 | MEMORY_LAZY) == &streams[1]);
    CHECK(!memory_stream(&sample, 0) && !memory_stream(&sample, 2));
    CHECK(!memory_stream(&sample, UINT32_MAX));
    for (uint64_t page = 0; page < streams[0].pages; page++) {
        size_t want = page < 60 ? 0 : page < 1060 ? 1 : page < 1061 ? 2 : 3;
        CHECK_INT(memory_find(&sample, &streams[0], page), want);
    }
    CHECK_INT(memory_find(&sample, &streams[1], 0), 4);
    CHECK_INT(memory_find(&sample, &streams[1], 1), 4);
}

TEST(totals_count_pages_and_bytes)
{
    struct memory_totals t = memory_totals(&sample);
    CHECK_INT(t.pages, 1096);
    CHECK_INT(t.zero, 1000);
    CHECK_INT(t.stored, 64 + 1 + 33);
    CHECK_INT(t.bytes, 1234 + 4096 + 65000);
    CHECK_INT(t.different, 60 + 1 + 33); /* the last two are in the extent before, too */
    CHECK_INT(t.reads, 3);
}

#include "base/compiler.h"
#include "base/mem.h"
#include "harness/test.h"
#include "store/chunk_list.h"

#include <string.h>

static const char *const names[] = {"00000000000000000000000000000000",
                                    "11111111111111111111111111111111",
                                    "22222222222222222222222222222222"};

static void add_chunk(struct chunk_list *l, uint32_t pack, uint64_t offset, uint16_t codec)
{
    uint32_t chunk = chunk_list_chunk(l);
    l->chunks[chunk] = (struct memory_chunk){
        .offset = offset, .stored = 100, .pack = pack, .pages = 2, .codec = codec};
}

/* Three packs with two chunks each; chunk 5 holds changes of page 1 of chunk 2 and page 0 of 3. */
static void fill(struct chunk_list *l)
{
    for (uint32_t pack = 0; pack < 3; pack++) {
        CHECK_INT(chunk_list_pack(l, names[pack], 1000), pack);
        add_chunk(l, pack, 0, COMPRESS_RAW);
        add_chunk(l, pack, 100, pack == 2 ? COMPRESS_LZ4 | MEMORY_CHANGES : COMPRESS_RAW);
    }
    struct page_place *bases = chunk_list_bases(l, 5, 2);
    bases[0] = (struct page_place){2, 1};
    bases[1] = (struct page_place){3, 0};
}

/* A map of one stream of chunks of two pages. */
static struct memory map_of(const uint32_t *chunks, size_t n)
{
    struct memory m = {.streams = mem_zalloc(sizeof(*m.streams)),
                       .extents = mem_zalloc((n + 1) * sizeof(*m.extents)),
                       .n_streams = 1,
                       .n_extents = n};
    m.streams[0] = (struct memory_stream){.id = 1, .pages = 2 * n, .n = n};
    for (size_t i = 0; i < n; i++)
        m.extents[i] = (struct memory_extent){.page = 2 * i, .pages = 2, .chunk = chunks[i]};
    return m;
}

static void check_sound(const struct memory *m)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = {.max = MEMORY_MAX};
    CLEANUP(memory_done) struct memory again = {0};
    memory_format(m, &text);
    CHECK_OK(memory_parse(text.data, text.len, &again, &err));
}

TEST(only_what_is_needed_is_numbered_in_the_order_of_need)
{
    CLEANUP(chunk_list_done) struct chunk_list l = {0};
    fill(&l);
    CLEANUP(memory_done) struct memory m = map_of((uint32_t[]){4, MEMORY_ZERO, 1, 4}, 4);
    chunk_list_number(&l, &m);
    CHECK(m.n_packs == 2 && m.n_chunks == 2 && m.n_bases == 0);
    CHECK_STR(m.packs[0].name, names[2]);
    CHECK_STR(m.packs[1].name, names[0]);
    CHECK(m.extents[0].chunk == 0 && m.extents[1].chunk == MEMORY_ZERO);
    CHECK(m.extents[2].chunk == 1 && m.extents[3].chunk == 0);
    CHECK(m.chunks[1].offset == 100 && m.chunks[1].pack == 1);
    check_sound(&m);
}

TEST(what_changes_are_changes_of_comes_along_before_them)
{
    CLEANUP(chunk_list_done) struct chunk_list l = {0};
    fill(&l);
    CLEANUP(memory_done) struct memory m = map_of((uint32_t[]){5}, 1);
    chunk_list_number(&l, &m);
    CHECK(m.n_packs == 2 && m.n_chunks == 3 && m.n_bases == 2);
    CHECK(m.extents[0].chunk == 2 && memory_has_changes(&m.chunks[2]));
    CHECK(m.bases[0].of == 0 && m.bases[0].of_at == 1 && m.bases[1].of == 1);
    check_sound(&m);
}

TEST(what_was_taken_from_a_map_becomes_the_same_map)
{
    CLEANUP(chunk_list_done) struct chunk_list l = {0};
    CLEANUP(chunk_list_done) struct chunk_list taken = {0};
    CLEANUP(buf_done) struct buf before = {.max = MEMORY_MAX};
    CLEANUP(buf_done) struct buf after = {.max = MEMORY_MAX};
    uint32_t all[] = {0, 5, 1};
    fill(&l);
    CLEANUP(memory_done) struct memory m = map_of(all, ARRAY_LEN(all));
    chunk_list_number(&l, &m);
    memory_format(&m, &before);
    chunk_list_take(&taken, &m);
    for (size_t i = 0; i < m.n_extents; i++)
        all[i] = m.extents[i].chunk;
    CLEANUP(memory_done) struct memory again = map_of(all, ARRAY_LEN(all));
    chunk_list_number(&taken, &again);
    memory_format(&again, &after);
    CHECK(before.len == after.len && memcmp(before.data, after.data, before.len) == 0);
}

#include "base/compiler.h"
#include "base/mem.h"
#include "harness/test.h"
#include "store/repack_plan.h"

#include <stdio.h>
#include <string.h>

#define MAPS 2
#define STORED 100000U /* bytes of each chunk, all of 64 pages */

/* Maps of chunks of a store: chunk i of pack p lies at i * STORED. */
struct sample {
    struct memory map[MAPS];
    const struct memory *maps[MAPS];
    struct repack_plan plan;
};

static void name_of(unsigned pack, char out[MEMORY_PACK_NAME_LEN + 1])
{
    (void)snprintf(out, MEMORY_PACK_NAME_LEN + 1, "%032u", pack);
}

static uint32_t pack_in(struct memory *m, unsigned pack, unsigned chunks)
{
    char name[MEMORY_PACK_NAME_LEN + 1];
    name_of(pack, name);
    for (uint32_t i = 0; i < m->n_packs; i++)
        if (strcmp(m->packs[i].name, name) == 0)
            return i;
    m->packs = mem_realloc(m->packs, (m->n_packs + 1) * sizeof(*m->packs));
    memcpy(m->packs[m->n_packs].name, name, sizeof(name));
    m->packs[m->n_packs].size = (uint64_t)chunks * (STORED + 48 + 64 * 24) + 64;
    return (uint32_t)m->n_packs++;
}

/* The map needs pages first..first+n-1 of a chunk of a pack that has so many. */
static void need(struct memory *m, unsigned pack, unsigned chunks, unsigned chunk, unsigned first,
                 unsigned n)
{
    uint32_t own = pack_in(m, pack, chunks);
    m->chunks = mem_realloc(m->chunks, (m->n_chunks + 1) * sizeof(*m->chunks));
    m->extents = mem_realloc(m->extents, (m->n_extents + 1) * sizeof(*m->extents));
    m->chunks[m->n_chunks] = (struct memory_chunk){.offset = (uint64_t)chunk * STORED,
                                                   .stored = STORED,
                                                   .pack = own,
                                                   .pages = 64,
                                                   .codec = COMPRESS_LZ4};
    m->extents[m->n_extents++] =
        (struct memory_extent){.pages = n, .chunk = (uint32_t)m->n_chunks++, .at = first};
}

static void make(struct sample *s, const repack_name *pinned, size_t n_pinned)
{
    for (size_t i = 0; i < MAPS; i++)
        s->maps[i] = &s->map[i];
    repack_plan_make(s->maps, MAPS, pinned, n_pinned, &s->plan);
}

static void sample_done(struct sample *s)
{
    repack_plan_done(&s->plan);
    for (size_t i = 0; i < MAPS; i++)
        memory_done(&s->map[i]);
}

TEST(what_lies_well_stays)
{
    CLEANUP(sample_done) struct sample s = {0};
    for (unsigned i = 0; i < 20; i++)
        need(&s.map[0], 1, 20, i, 0, 64);
    make(&s, NULL, 0);
    CHECK(!repack_plan_touches(&s.plan, 0) && !repack_plan_touches(&s.plan, 1));
    CHECK(repack_plan_moved(&s.plan) == 0 && repack_plan_freed(&s.plan) == 0);
}

TEST(a_checkpoint_of_many_packs_is_brought_together)
{
    CLEANUP(sample_done) struct sample s = {0};
    for (unsigned i = 0; i < 20; i++)
        need(&s.map[0], i, 1, 0, 0, 64);
    make(&s, NULL, 0);
    CHECK(repack_plan_touches(&s.plan, 0));
    CHECK(repack_plan_moved(&s.plan) > 20ULL * STORED);
    CHECK(repack_plan_freed(&s.plan) > 20ULL * STORED);
}

TEST(what_the_newest_has_in_order_is_not_moved_for_an_older_one)
{
    CLEANUP(sample_done) struct sample s = {0};
    for (unsigned i = 0; i < 200; i++)
        need(&s.map[0], 1, 200, i, 0, 64);
    for (unsigned i = 0; i < 200; i += 10) /* to this one it is scattered, though in use */
        need(&s.map[1], 1, 200, i, 3, 1);
    make(&s, NULL, 0);
    CHECK(!repack_plan_touches(&s.plan, 0) && !repack_plan_touches(&s.plan, 1));
}

TEST(a_pack_that_is_mostly_garbage_is_emptied)
{
    CLEANUP(sample_done) struct sample s = {0};
    for (unsigned i = 0; i < 7; i++) {
        need(&s.map[0], 1, 10, i, 0, 64); /* 70 % */
        need(&s.map[1], 2, 9, i, 0, 64);  /* 78 % */
    }
    make(&s, NULL, 0);
    CHECK(repack_plan_touches(&s.plan, 0) && !repack_plan_touches(&s.plan, 1));
    CHECK(repack_plan_freed(&s.plan) == s.map[0].packs[0].size);
}

TEST(of_a_chunk_only_needed_pages_move_for_whoever_needs_them)
{
    CLEANUP(sample_done) struct sample s = {0};
    need(&s.map[0], 1, 10, 0, 0, 2);
    need(&s.map[1], 1, 10, 0, 1, 3);
    make(&s, NULL, 0);
    CHECK_INT(s.plan.n_sources, 1);
    CHECK(s.plan.sources[0].move == 0xf);
    CHECK(repack_plan_touches(&s.plan, 0) && repack_plan_touches(&s.plan, 1));
}

TEST(what_is_pinned_stays)
{
    CLEANUP(sample_done) struct sample s = {0};
    repack_name pinned[20];
    for (unsigned i = 0; i < 20; i++) {
        need(&s.map[0], i, 9, 0, 0, 1);
        name_of(i, pinned[i]);
    }
    make(&s, pinned, 20);
    CHECK(!repack_plan_touches(&s.plan, 0));
    CHECK(repack_plan_freed(&s.plan) == 0);
}

TEST(maps_that_contradict_each_other_mean_different_chunks)
{
    CLEANUP(sample_done) struct sample s = {0};
    need(&s.map[0], 1, 10, 0, 0, 64);
    need(&s.map[1], 1, 10, 0, 0, 64);
    s.map[1].chunks[0].digest.bytes[3] = 1;
    make(&s, NULL, 0);
    CHECK_INT(s.plan.n_sources, 2);
    CHECK(s.plan.source_of[0][0] != s.plan.source_of[1][0]);
}

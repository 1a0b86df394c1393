#include "base/compiler.h"
#include "base/mem.h"
#include "harness/test.h"
#include "store/page_refs.h"

TEST(a_reference_gives_back_what_it_was_made_of)
{
    struct page_place p = page_ref_place(page_ref_of(UINT32_MAX - 1, MEMORY_CHUNK_PAGES - 1));
    CHECK(p.chunk == UINT32_MAX - 1 && p.page == MEMORY_CHUNK_PAGES - 1);
}

TEST(pages_that_follow_each_other_are_one_extent)
{
    struct err err = ERR_INIT;
    size_t room = 0;
    CLEANUP(mem_freep) page_ref *refs = page_refs_new(7);
    CLEANUP(memory_done)
    struct memory m = {.streams = mem_zalloc(2 * sizeof(*m.streams))};
    refs[0] = page_ref_of(3, 5);
    refs[1] = page_ref_of(3, 6);
    refs[2] = refs[3] = PAGE_REF_ZERO;
    refs[4] = page_ref_of(3, 7); /* would go on, were it not for the zeros */
    refs[5] = page_ref_of(4, 8);
    refs[6] = page_ref_of(4, 8);
    CHECK_OK(page_refs_add_stream(refs, 9, 7, &m, &room, &err));
    CHECK_OK(page_refs_add_stream(refs, 11, 2, &m, &room, &err));
    CHECK(m.n_streams == 2 && m.streams[0].n == 5 && m.streams[1].first == 5);
    const struct memory_extent want[] = {{0, 2, 3, 5}, {2, 2, MEMORY_ZERO, 0}, {4, 1, 3, 7},
                                         {5, 1, 4, 8}, {6, 1, 4, 8},           {0, 2, 3, 5}};
    CHECK_INT(m.n_extents, ARRAY_LEN(want));
    for (size_t i = 0; i < ARRAY_LEN(want); i++)
        CHECK(m.extents[i].page == want[i].page && m.extents[i].pages == want[i].pages &&
              m.extents[i].chunk == want[i].chunk && m.extents[i].at == want[i].at);
}

TEST(a_page_of_which_nobody_has_said_anything_is_an_error)
{
    struct err err = ERR_INIT;
    size_t room = 0;
    CLEANUP(mem_freep) page_ref *refs = page_refs_new(2);
    CLEANUP(memory_done)
    struct memory m = {.streams = mem_zalloc(sizeof(*m.streams))};
    refs[0] = PAGE_REF_ZERO;
    CHECK_RC(page_refs_add_stream(refs, 1, 2, &m, &room, &err), RC_INVALID);
    CHECK(strstr(err.msg, "page 1 of page image 1"));
}

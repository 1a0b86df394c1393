#include "store/page_refs.h"

#include "base/mem.h"

#include <stdbool.h>

page_ref page_ref_of(uint32_t chunk, uint32_t page)
{
    return (page_ref)chunk << 8 | page;
}

struct page_place page_ref_place(page_ref r)
{
    return (struct page_place){(uint32_t)(r >> 8), (uint32_t)(r & 0xff)};
}

page_ref *page_refs_new(uint64_t pages)
{
    page_ref *refs = mem_alloc((pages + 1) * sizeof(*refs));
    for (uint64_t i = 0; i < pages; i++)
        refs[i] = PAGE_REF_NONE;
    return refs;
}

static bool continues(const struct memory_extent *e, page_ref r)
{
    if (e->pages == UINT32_MAX)
        return false;
    if (r == PAGE_REF_ZERO || e->chunk == MEMORY_ZERO)
        return r == PAGE_REF_ZERO && e->chunk == MEMORY_ZERO;
    struct page_place p = page_ref_place(r);
    return p.chunk == e->chunk && p.page == (uint64_t)e->at + e->pages;
}

enum rc page_refs_add_stream(const page_ref *refs, uint32_t id, uint64_t pages, struct memory *m,
                             size_t *room, struct err *err)
{
    struct memory_stream *s = &m->streams[m->n_streams++];
    *s = (struct memory_stream){.id = id, .pages = pages, .first = m->n_extents};
    for (uint64_t i = 0; i < pages; i++) {
        page_ref r = refs[i];
        if (r == PAGE_REF_NONE)
            return err_set(err, RC_INVALID, "page %ju of page image %u was not given", (uintmax_t)i,
                           id);
        if (s->n && continues(&m->extents[m->n_extents - 1], r)) {
            m->extents[m->n_extents - 1].pages++;
            continue;
        }
        if (m->n_extents == *room) {
            *room = *room ? *room * 2 : 1024;
            m->extents = mem_realloc(m->extents, *room * sizeof(*m->extents));
        }
        struct page_place p =
            r == PAGE_REF_ZERO ? (struct page_place){MEMORY_ZERO, 0} : page_ref_place(r);
        m->extents[m->n_extents++] =
            (struct memory_extent){.page = i, .pages = 1, .chunk = p.chunk, .at = p.page};
        s->n++;
    }
    return RC_OK;
}

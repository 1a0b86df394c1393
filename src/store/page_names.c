#include "store/page_names.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "store/pack_check.h"

#include <stdlib.h>
#include <string.h>

/* Names of the chunks that lie in one pack. */
static enum rc load_pack(struct backend *b, const struct memory *m, uint32_t pack,
                         struct page_names *n, struct err *err)
{
    CLEANUP(pack_index_done) struct pack_index x = {0};
    uint64_t size = 0;
    enum rc rc = pack_read_index(b, NULL, m->packs[pack].name, &x, &size, err);
    if (rc)
        return rc;
    CLEANUP(mem_freep) size_t *first = mem_zalloc((x.n_chunks + 1) * sizeof(*first));
    for (size_t i = 0; i < x.n_chunks; i++)
        first[i + 1] = first[i] + x.chunks[i].pages;
    for (size_t i = 0; i < m->n_chunks; i++) {
        const struct memory_chunk *c = &m->chunks[i];
        size_t at = 0;
        if (c->pack != pack)
            continue;
        if (!pack_find(&x, c, &at))
            return err_set(err, RC_CORRUPT, "pack '%s' has no chunk at byte %ju as it is needed",
                           m->packs[pack].name, (uintmax_t)c->offset);
        memcpy(n->names + n->first[i], x.names + first[at], c->pages * sizeof(*n->names));
    }
    return RC_OK;
}

static void make_room(const struct memory *m, struct page_names *n)
{
    size_t total = 0;
    n->first = mem_zalloc((m->n_chunks + 1) * sizeof(*n->first));
    for (size_t i = 0; i < m->n_chunks; i++) {
        n->first[i] = total;
        total += m->chunks[i].pages;
    }
    n->names = mem_zalloc((total + 1) * sizeof(*n->names));
}

enum rc page_names_compute(const struct page_reader *r, struct page_names *out, struct err *err)
{
    const struct memory *m = page_reader_memory(r);
    CLEANUP(page_names_done) struct page_names n = {0};
    CLEANUP(mem_freep) uint8_t *buffers = mem_alloc(2 * MEMORY_CHUNK);
    uint8_t *pages = buffers + MEMORY_CHUNK;
    make_room(m, &n);
    for (uint32_t i = 0; i < m->n_chunks; i++) {
        enum rc rc = page_reader_chunk(r, i, buffers, pages, err);
        if (rc)
            return rc;
        for (size_t k = 0; k < m->chunks[i].pages; k++)
            page_name(NULL, pages + k * MEMORY_PAGE, &n.names[n.first[i] + k]);
    }
    *out = n;
    n = (struct page_names){0};
    return RC_OK;
}

enum rc page_names_load(struct backend *b, const struct memory *m, struct page_names *out,
                        struct err *err)
{
    CLEANUP(page_names_done) struct page_names n = {0};
    make_room(m, &n);
    for (uint32_t i = 0; i < m->n_packs; i++) {
        enum rc rc = load_pack(b, m, i, &n, err);
        if (rc)
            return rc;
    }
    *out = n;
    n = (struct page_names){0};
    return RC_OK;
}

void page_names_done(struct page_names *n)
{
    free(n->names);
    free(n->first);
    *n = (struct page_names){0};
}

const struct page_name *page_names_find(const struct page_names *n, const struct memory *m,
                                        const struct memory_stream *s, uint64_t page)
{
    const struct memory_extent *e = &m->extents[memory_find(m, s, page)];
    return e->chunk == MEMORY_ZERO ? NULL
                                   : &n->names[n->first[e->chunk] + e->at + (page - e->page)];
}

/* The memory map of a checkpoint: what is parsed can be looked up everywhere, and when it is
 * written and read again it is still the same. */
#include "base/compiler.h"
#include "store/memory.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Each page is in an extent of its stream, each extent in its chunk, each chunk in its pack. */
static void walk(const struct memory *m)
{
    for (size_t i = 0; i < m->n_streams; i++) {
        const struct memory_stream *s = memory_stream(m, m->streams[i].id);
        uint64_t next = 0;
        for (size_t k = s->first; k < s->first + s->n; k++) {
            const struct memory_extent *e = &m->extents[k];
            if (e->page != next || memory_find(m, s, e->page) != k ||
                memory_find(m, s, e->page + e->pages - 1) != k)
                abort();
            next += e->pages;
            if (e->chunk == MEMORY_ZERO)
                continue;
            const struct memory_chunk *c = &m->chunks[e->chunk];
            if (e->at + e->pages > c->pages || c->offset + c->stored > m->packs[c->pack].size)
                abort();
        }
        if (next != s->pages)
            abort();
    }
    for (uint32_t i = 0; i < m->n_chunks; i++) {
        const struct memory_base *b;
        size_t n = memory_bases(m, i, &b);
        unsigned at = 0;
        for (size_t k = 0; k < n; at += b[k++].pages)
            if (b[k].at != at || memory_has_changes(&m->chunks[b[k].of]) ||
                b[k].of_at + b[k].pages > m->chunks[b[k].of].pages)
                abort();
        if (at != (memory_has_changes(&m->chunks[i]) ? m->chunks[i].pages : 0))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (memory_parse(data, size, &m, NULL) != RC_OK)
        return 0;
    walk(&m);
    (void)memory_totals(&m);
    memory_format(&m, &text);
    CLEANUP(memory_done) struct memory again = {0};
    if (memory_parse(text.data, text.len, &again, NULL) != RC_OK)
        abort();
    CLEANUP(buf_done) struct buf same = BUF_INIT;
    memory_format(&again, &same);
    if (same.len != text.len || memcmp(same.data, text.data, text.len) != 0)
        abort();
    return 0;
}

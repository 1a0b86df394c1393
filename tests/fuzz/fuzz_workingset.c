/* What parses is inside its limits: every extent has pages, the chunks hold exactly these, and lie
 * in the file.  The digest of the tables is made right first, or nothing would ever parse. */
#include "base/compiler.h"
#include "base/mem.h"
#include "store/workingset.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT;
    CLEANUP(mem_freep) uint8_t *copy = mem_alloc(size + 1);
    struct digest d;
    uint64_t file_size = (uint64_t)1 << 30, pages = 0, held = 0;
    (void)!workingset_parse(data, size, size, &w, NULL);
    workingset_done(&w);
    if (size < DIGEST_LEN)
        return 0;
    memcpy(copy, data, size);
    digest_of(copy, size - DIGEST_LEN, &d);
    memcpy(copy + size - DIGEST_LEN, d.bytes, DIGEST_LEN);
    if (workingset_parse(copy, size, file_size, &w, NULL) != RC_OK)
        return 0;
    for (size_t i = 0; i < w.n_extents; i++) {
        pages += w.extents[i].pages;
        if (w.extents[i].pages == 0)
            abort();
    }
    for (size_t i = 0; i < w.n_chunks; i++) {
        const struct workingset_chunk *c = &w.chunks[i];
        held += c->pages;
        if (c->pages == 0 || c->pages > MEMORY_CHUNK_PAGES || c->stored > MEMORY_CHUNK ||
            c->offset + c->stored > file_size)
            abort();
    }
    if (pages != held || pages != w.pages || pages > WORKINGSET_PAGES_MAX)
        abort();
    return 0;
}

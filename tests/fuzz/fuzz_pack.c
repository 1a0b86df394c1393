/* A pack of outside bytes: its index is refused or whole.  The first byte chooses the parser: the
 * whole object, or with any other the index alone, which no digest protects. */
#include "backend/drivers.h"
#include "base/compiler.h"
#include "store/pack.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(const struct pack_index *x, uint64_t data_len)
{
    uint64_t offset = 0, pages = 0;
    for (size_t i = 0; i < x->n_chunks; i++) {
        if (x->chunks[i].offset != offset || x->chunks[i].pages > MEMORY_CHUNK_PAGES)
            abort();
        offset += x->chunks[i].stored;
        pages += x->chunks[i].pages;
    }
    if (pages != x->n_names || offset != data_len)
        abort();
}

static void whole(const uint8_t *data, size_t size)
{
    static const char name[] = "0123456789abcdef0123456789abcdef";
    char key[PACK_KEY_LEN];
    uint64_t got = 0;
    CLEANUP(pack_index_done) struct pack_index x = {0};
    CLEANUP(backend_freep) struct backend *b = NULL;
    pack_key(name, key);
    if (backend_mem_open(&b, NULL) != RC_OK || backend_put(b, key, data, size, NULL) != RC_OK)
        abort();
    if (pack_read_index(b, NULL, name, &x, &got, NULL) == RC_OK && got != size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(pack_index_done) struct pack_index x = {0};
    if (size < 4)
        return 0;
    if (data[0] == 0) {
        whole(data + 1, size - 1);
        return 0;
    }
    uint64_t data_len = (uint64_t)data[3] << 12 | (uint64_t)data[0];
    if (pack_index_parse(data + 4, size - 4, data[1], data[2], data_len, &x, NULL) == RC_OK)
        walk(&x, data_len);
    return 0;
}

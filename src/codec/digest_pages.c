#include "codec/digest_pages.h"

#include <blake3_impl.h>
#include <string.h>

#define CHUNKS (DIGEST_PAGE / BLAKE3_CHUNK_LEN) /* of a page: a tree of two levels */
#define CHUNK_BLOCKS (BLAKE3_CHUNK_LEN / BLAKE3_BLOCK_LEN)
#define LANES 16U /* pages at a time: as many as any processor takes */

_Static_assert(CHUNKS == 4, "two levels of parents");

struct node {
    uint8_t value[BLAKE3_OUT_LEN];
};

/* Parents of neighbours: list[0..2n) becomes out[0..n). */
static void join(const uint32_t key[8], uint8_t flags, const struct node *list, size_t n,
                 struct node *out)
{
    const uint8_t *blocks[2 * LANES];
    for (size_t i = 0; i < n; i++)
        blocks[i] = list[2 * i].value;
    blake3_hash_many(blocks, n, 1, key, 0, false, flags | PARENT, 0, 0, (uint8_t *)out);
}

static void digest_some(const uint32_t key[8], uint8_t flags, const void *const *pages, size_t n,
                        struct digest *out)
{
    struct node chunks[CHUNKS * LANES], column[LANES], pairs[2 * LANES], roots[LANES];
    const uint8_t *at[LANES];
    for (size_t c = 0; c < CHUNKS; c++) {
        for (size_t i = 0; i < n; i++)
            at[i] = (const uint8_t *)pages[i] + c * BLAKE3_CHUNK_LEN;
        blake3_hash_many(at, n, CHUNK_BLOCKS, key, c, false, flags, CHUNK_START, CHUNK_END,
                         (uint8_t *)column);
        for (size_t i = 0; i < n; i++)
            chunks[i * CHUNKS + c] = column[i];
    }
    join(key, flags, chunks, 2 * n, pairs);
    join(key, flags | ROOT, pairs, n, roots);
    for (size_t i = 0; i < n; i++)
        memcpy(out[i].bytes, roots[i].value, DIGEST_LEN);
}

void digest_pages(const uint8_t *key, const void *const *pages, size_t n, struct digest *out)
{
    uint32_t words[8];
    if (key)
        load_key_words(key, words);
    for (size_t at = 0; at < n; at += LANES)
        digest_some(key ? words : IV, key ? KEYED_HASH : 0, pages + at,
                    n - at < LANES ? n - at : LANES, out + at);
}

#include "base/compiler.h"
#include "base/mem.h"
#include "codec/digest_pages.h"
#include "harness/test.h"

#include <blake3.h>
#include <string.h>

#define MOST 70U

TEST(many_pages_have_the_digests_that_each_has_alone)
{
    CLEANUP(mem_freep) uint8_t *data = mem_alloc(MOST * DIGEST_PAGE);
    const void *pages[MOST];
    struct digest got[MOST + 1], want;
    uint8_t key[BLAKE3_KEY_LEN];
    for (size_t i = 0; i < MOST * DIGEST_PAGE; i++)
        data[i] = (uint8_t)(i * 31 + (i >> 9) * 7 + (i >> 13));
    for (size_t i = 0; i < sizeof(key); i++)
        key[i] = (uint8_t)(200 - i);
    for (size_t i = 0; i < MOST; i++)
        pages[i] = data + (i * 11 % MOST) * DIGEST_PAGE;
    for (size_t n = 0; n <= MOST; n++)
        for (int keyed = 0; keyed < 2; keyed++) {
            memset(got, 0x55, sizeof(got));
            digest_pages(keyed ? key : NULL, pages, n, got);
            for (size_t i = 0; i < n; i++) {
                blake3_hasher h;
                if (keyed)
                    blake3_hasher_init_keyed(&h, key);
                else
                    blake3_hasher_init(&h);
                blake3_hasher_update(&h, pages[i], DIGEST_PAGE);
                blake3_hasher_finalize(&h, want.bytes, DIGEST_LEN);
                CHECK(digest_equal(&want, &got[i]));
            }
            CHECK(got[n].bytes[0] == 0x55 && got[n].bytes[DIGEST_LEN - 1] == 0x55);
        }
}

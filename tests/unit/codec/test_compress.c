#include "base/compiler.h"
#include "base/mem.h"
#include "base/rand.h"
#include "codec/compress.h"
#include "harness/test.h"

#include <limits.h>
#include <stdlib.h>

#define LEN ((size_t)64 * 4096)

/* Every other byte random: compressible, not much. */
static char *half_random(void)
{
    char *data = mem_alloc(LEN);
    rand_bytes(data, LEN);
    for (size_t i = 0; i < LEN; i += 2)
        data[i] = 'x';
    for (size_t i = 0; i < LEN / 2; i++)
        data[i] = 'y';
    return data;
}

TEST(each_codec_gives_back_what_it_was_given)
{
    CLEANUP(mem_freep) char *data = half_random();
    CLEANUP(mem_freep) char *packed = mem_alloc(compress_bound(LEN));
    CLEANUP(mem_freep) char *back = mem_alloc(LEN);
    for (enum compress_codec c = COMPRESS_LZ4; c < COMPRESS_COUNT_; c++)
        for (size_t len = 4096; len <= LEN; len *= 4) {
            struct err err = ERR_INIT;
            size_t n = 0;
            CHECK_INT(compress_block(c, data, len, packed, &n), c);
            CHECK(n > 0 && n < len);
            CHECK_OK(compress_expand(c, packed, n, back, len, &err));
            CHECK(memcmp(back, data, len) == 0);
        }
}

TEST(what_does_not_compress_is_stored_as_it_is)
{
    struct err err = ERR_INIT;
    size_t n = 0;
    CLEANUP(mem_freep) char *data = mem_alloc(LEN);
    CLEANUP(mem_freep) char *packed = mem_alloc(compress_bound(LEN));
    CLEANUP(mem_freep) char *back = mem_alloc(LEN);
    rand_bytes(data, LEN);
    for (enum compress_codec c = COMPRESS_RAW; c < COMPRESS_COUNT_; c++) {
        CHECK_INT(compress_block(c, data, LEN, packed, &n), COMPRESS_RAW);
        CHECK_INT(n, LEN);
    }
    CHECK_OK(compress_expand(COMPRESS_RAW, data, LEN, back, LEN, &err));
    CHECK(memcmp(back, data, LEN) == 0);
    CHECK_INT(compress_block(COMPRESS_RAW, "aaaa", 4, packed, &n), COMPRESS_RAW);
}

TEST(other_bytes_or_sizes_do_not_expand)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *data = half_random();
    CLEANUP(mem_freep) char *packed = mem_alloc(compress_bound(LEN));
    CLEANUP(mem_freep) char *back = mem_alloc(LEN + 1);
    for (enum compress_codec c = COMPRESS_LZ4; c < COMPRESS_COUNT_; c++) {
        size_t n = 0;
        (void)compress_block(c, data, LEN, packed, &n);
        CHECK_RC(compress_expand(c, packed, n, back, LEN - 1, &err), RC_CORRUPT);
        CHECK_RC(compress_expand(c, packed, n, back, LEN + 1, &err), RC_CORRUPT);
        CHECK_RC(compress_expand(c, packed, n - 1, back, LEN, &err), RC_CORRUPT);
        CHECK_RC(compress_expand(c, packed, 0, back, LEN, &err), RC_CORRUPT);
        for (size_t i = 0; i < 200; i++) { /* never out of bounds: the sanitizer watches */
            packed[i * n / 200] ^= 0x55;
            (void)!compress_expand(c, packed, n, back, LEN, &err);
        }
    }
    CHECK_RC(compress_expand(COMPRESS_RAW, data, LEN - 1, back, LEN, &err), RC_CORRUPT);
    CHECK_RC(compress_expand(COMPRESS_RAW, data, (size_t)INT_MAX + 1, back, LEN, &err), RC_CORRUPT);
    CHECK_RC(compress_expand(COMPRESS_COUNT_, data, LEN, back, LEN, &err), RC_UNSUPPORTED);
}

TEST(codecs_have_names)
{
    struct err err = ERR_INIT;
    for (enum compress_codec c = COMPRESS_RAW; c < COMPRESS_COUNT_; c++) {
        enum compress_codec got = COMPRESS_COUNT_;
        CHECK_OK(compress_parse(compress_name(c), &got, &err));
        CHECK_INT(got, c);
    }
    enum compress_codec got = COMPRESS_COUNT_;
    CHECK_RC(compress_parse("gzip", &got, &err), RC_INVALID);
    CHECK_INT(got, COMPRESS_COUNT_);
    CHECK(strstr(err.msg, "'gzip' is no compression"));
}

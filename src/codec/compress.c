#include "codec/compress.h"

#include "base/compiler.h"

#include <limits.h>
#include <lz4.h>
#include <string.h>
#include <zstd.h>

#define ZSTD_LEVEL 1
#define ZSTD_LEVEL_WELL 12

static const char *const names[COMPRESS_COUNT_] = {"raw", "lz4", "zstd"};

const char *compress_name(enum compress_codec codec)
{
    return names[codec];
}

enum rc compress_parse(const char *name, enum compress_codec *out, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum compress_codec)i;
            return RC_OK;
        }
    return err_set(err, RC_INVALID, "'%.32s' is no compression; known are lz4, zstd and raw", name);
}

size_t compress_bound(size_t len)
{
    size_t lz4 = (size_t)LZ4_compressBound((int)len), zstd = ZSTD_compressBound(len);
    return lz4 > zstd ? lz4 : zstd;
}

static size_t by_zstd(const void *data, size_t len, void *out, size_t room, int level)
{
    size_t n = ZSTD_compress(out, room, data, len, level);
    return ZSTD_isError(n) ? 0 : n;
}

/* n: bytes that a codec has made of `len`; 0: it cannot */
static enum compress_codec if_it_pays(enum compress_codec codec, size_t n, size_t len,
                                      size_t *out_len)
{
    bool pays = n > 0 && n <= len - len / 16;
    *out_len = pays ? n : len;
    return pays ? codec : COMPRESS_RAW;
}

enum compress_codec compress_well(const void *data, size_t len, void *out, size_t *out_len)
{
    return if_it_pays(COMPRESS_ZSTD, by_zstd(data, len, out, compress_bound(len), ZSTD_LEVEL_WELL),
                      len, out_len);
}

enum compress_codec compress_block(enum compress_codec codec, const void *data, size_t len,
                                   void *out, size_t *out_len)
{
    size_t n = 0, room = compress_bound(len);
    if (codec == COMPRESS_LZ4) {
        int got = LZ4_compress_default(data, out, (int)len, (int)room);
        n = got > 0 ? (size_t)got : 0;
    } else if (codec == COMPRESS_ZSTD) {
        n = by_zstd(data, len, out, room, ZSTD_LEVEL);
    }
    return if_it_pays(codec, n, len, out_len);
}

bool compress_frame_size(const void *data, size_t len, uint64_t *out)
{
    unsigned long long size = ZSTD_getFrameContentSize(data, len);
    if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN)
        return false;
    *out = size;
    return true;
}

enum rc compress_expand(enum compress_codec codec, const void *data, size_t stored_len, void *out,
                        size_t len, struct err *err)
{
    size_t n = 0;
    if (stored_len > INT_MAX || len > INT_MAX)
        return err_set(err, RC_CORRUPT, "a block of %zu bytes", len);
    switch (codec) {
    case COMPRESS_RAW:
        if (stored_len == len)
            memcpy(out, data, len);
        n = stored_len;
        break;
    case COMPRESS_LZ4: {
        int got = LZ4_decompress_safe(data, out, (int)stored_len, (int)len);
        n = got > 0 ? (size_t)got : 0;
        break;
    }
    case COMPRESS_ZSTD:
        n = ZSTD_decompress(out, len, data, stored_len);
        n = ZSTD_isError(n) ? 0 : n;
        break;
    case COMPRESS_COUNT_:
    default:
        return err_set(err, RC_UNSUPPORTED, "compression %d is of a newer chrek", (int)codec);
    }
    return n == len ? RC_OK : err_set(err, RC_CORRUPT, "a block does not expand to its size");
}

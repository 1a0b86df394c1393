#include "codec/compress.h"

#include "base/compiler.h"

#include <limits.h>
#include <lz4.h>
#include <string.h>
#include <zstd.h>

#define ZSTD_LEVEL 1

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

enum compress_codec compress_block(enum compress_codec codec, const void *data, size_t len,
                                   void *out, size_t *out_len)
{
    size_t n = 0, room = compress_bound(len);
    if (codec == COMPRESS_LZ4) {
        int got = LZ4_compress_default(data, out, (int)len, (int)room);
        n = got > 0 ? (size_t)got : 0;
    } else if (codec == COMPRESS_ZSTD) {
        n = ZSTD_compress(out, room, data, len, ZSTD_LEVEL);
        n = ZSTD_isError(n) ? 0 : n;
    }
    if (n == 0 || n > len - len / 16) {
        *out_len = len;
        return COMPRESS_RAW;
    }
    *out_len = n;
    return codec;
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

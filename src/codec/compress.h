/* Compression of one block, and back.  Threads: safe. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Numbers are part of the pack format. */
enum compress_codec {
    COMPRESS_RAW = 0,
    COMPRESS_LZ4 = 1,  /* 4-6 GB/s back: for what is restored from local disks */
    COMPRESS_ZSTD = 2, /* level 1: a third smaller, 1.5 GB/s back: for networks */
    COMPRESS_COUNT_,
};

const char *compress_name(enum compress_codec codec); /* "lz4" */
/* errors RC_INVALID */
enum rc compress_parse(const char *name, enum compress_codec *out, struct err *err);

/* Room that compress_block() may need for `len` bytes. */
size_t compress_bound(size_t len);

/* Compress if it pays (at least a sixteenth saved).  out: compress_bound(len) bytes.
 * Returns the codec that was used: the one asked for, or COMPRESS_RAW, and then nothing is in `out`
 * that matters: store `data` itself. */
enum compress_codec compress_block(enum compress_codec codec, const void *data, size_t len,
                                   void *out, size_t *out_len);

/* The same by zstd, at a level that takes its time: for what is small and stays for long. */
enum compress_codec compress_well(const void *data, size_t len, void *out, size_t *out_len);

/* What a zstd frame says that it expands to.  False: it is none, or says nothing. */
bool compress_frame_size(const void *data, size_t len, uint64_t *out);

/* Expand to exactly `len` bytes.
 * errors RC_CORRUPT (these bytes are not what was compressed), RC_UNSUPPORTED (codec) */
enum rc compress_expand(enum compress_codec codec, const void *data, size_t stored_len, void *out,
                        size_t len, struct err *err);

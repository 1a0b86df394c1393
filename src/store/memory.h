/* The memory of a checkpoint: which pages its page images hold, and where they lie in packs.
 *
 * A *stream* is a row of pages: those of CRIU's page image pages-<id>.img, or with MEMORY_LAZY in
 * its id those that the page map of the same image only mentions (flag lazy, not present), in
 * order.  An *extent* says of some consecutive pages of a stream that they are zero, or lie one
 * after another in a *chunk*: a compressed run of up to 64 pages inside a *pack*, an object that
 * checkpoints share.
 *
 * The file (MEMORY_NAME, format 1, little-endian, docs/formats/memory.md) is vouched for by the
 * manifest; a pack need not be trusted, since each chunk's digest is here.  In format 2, which is
 * laid out in the same way, the packs are encrypted (store/pack.h).
 *
 * Threads: constant after it was made.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "codec/compress.h"
#include "codec/digest.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MEMORY_NAME "memory"
#define MEMORY_PAGE ((size_t)4096)
#define MEMORY_CHUNK_PAGES 64U
#define MEMORY_CHUNK (MEMORY_PAGE * MEMORY_CHUNK_PAGES)
#define MEMORY_PACK_NAME_LEN 32 /* hexadecimal digits of a pack's name */
#define MEMORY_MAX ((size_t)1 << 30)

#define MEMORY_LAZY 0x80000000U /* in the id of a stream */
#define MEMORY_ZERO UINT32_MAX  /* instead of a chunk's number: the pages are zero */

struct memory_pack {
    char name[MEMORY_PACK_NAME_LEN + 1];
    uint64_t size;
};

struct memory_chunk {
    struct digest digest; /* of the bytes as they are stored; sealed: 16 bytes of tag, then zeros */
    uint64_t offset;
    uint32_t stored; /* bytes in the pack */
    uint32_t pack;
    uint16_t pages; /* 1..MEMORY_CHUNK_PAGES */
    uint16_t codec; /* enum compress_codec */
};

struct memory_extent {
    uint64_t page;  /* first, counted from the stream's begin */
    uint32_t pages; /* at least 1 */
    uint32_t chunk; /* or MEMORY_ZERO */
    uint32_t at;    /* first page inside the chunk */
};

struct memory_stream {
    uint32_t id; /* of pages-<id>.img, and MEMORY_LAZY or not */
    uint64_t pages;
    size_t first, n; /* extents, sorted, without gaps */
};

struct memory {
    bool sealed; /* its packs are encrypted */
    struct memory_pack *packs;
    struct memory_chunk *chunks;
    struct memory_stream *streams; /* by ascending id */
    struct memory_extent *extents;
    size_t n_packs, n_chunks, n_streams, n_extents;
};

/* errors RC_CORRUPT, RC_UNSUPPORTED (newer format).  out: the caller's, memory_done() */
enum rc memory_parse(const void *data, size_t len, struct memory *out, struct err *err);
void memory_format(const struct memory *m, struct buf *out);
void memory_done(struct memory *m);

/* NULL when there is no such stream. */
const struct memory_stream *memory_stream(const struct memory *m, uint32_t id);
/* Index of the extent that holds a page of the stream. page < s->pages */
size_t memory_find(const struct memory *m, const struct memory_stream *s, uint64_t page);

struct memory_totals {
    uint64_t pages;     /* in all streams */
    uint64_t zero;      /* of these */
    uint64_t different; /* pages that are not zero, equal ones counted once */
    uint64_t stored;    /* pages in chunks that are named here, also those that only others need */
    uint64_t bytes;     /* of these chunks in packs */
    uint64_t reads;     /* of a chunk, when the streams are read one page after another */
};

struct memory_totals memory_totals(const struct memory *m);

/* The memory of a checkpoint: which pages its page images hold, and where they lie in packs.
 *
 * A *stream* is a row of pages: those of CRIU's page image pages-<id>.img, or with MEMORY_LAZY in
 * its id those that the page map of the same image only mentions (flag lazy, not present), in
 * order.  An *extent* says of some consecutive pages of a stream that they are zero, or lie one
 * after another in a *chunk*: a compressed run of up to 64 pages inside a *pack*, an object that
 * checkpoints share.  The pages of a chunk may be *changes*: what they differ in from pages of
 * other chunks, their *bases*, which are never changes themselves.
 *
 * The file (MEMORY_NAME, little-endian, docs/formats/memory.md) is vouched for by the manifest; a
 * pack need not be trusted, since each chunk's digest is here.  Formats: 1; 2 when the packs are
 * encrypted (store/pack.h); 3 and 4 are the same where there are changes.  These have tables of
 * rows and are only read; 5 to 8 are the same with columns (store/memory_columns.h), which are
 * written.
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

#define MEMORY_LAZY 0x80000000U           /* in the id of a stream */
#define MEMORY_ZERO UINT32_MAX            /* instead of a chunk's number: the pages are zero */
#define MEMORY_CHANGES 0x100U             /* in a chunk's codec */
#define MEMORY_HOLE ((uint64_t)128 << 10) /* bytes that are read rather than skipped */
#define MEMORY_WORDS (MEMORY_PAGE / 8)

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
    uint16_t codec; /* enum compress_codec, and MEMORY_CHANGES or not */
};

/* Pages of a chunk of changes, and the pages that they are changes of. */
struct memory_base {
    uint32_t chunk, of; /* of: a chunk that holds no changes */
    uint16_t at, pages; /* in `chunk`; at least 1 */
    uint16_t of_at;     /* in `of` */
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
    struct memory_base *bases; /* by chunk and page: all pages of all chunks of changes */
    size_t n_packs, n_chunks, n_streams, n_extents, n_bases;
};

/* The change that makes a page of its base, and back: 0 for each word of 64 bits that is the same,
 * the base's for one that is zero now, and else the new one.  New words compress better than what
 * they differ in from the old ones.  All are pages, which may lie anywhere.
 * returns  how many words differ */
unsigned memory_change(const void *page, const void *base, void *out);
/* change  becomes the page */
void memory_apply(void *change, const void *base);

/* errors RC_CORRUPT, RC_UNSUPPORTED (newer format).  out: the caller's, memory_done() */
enum rc memory_parse(const void *data, size_t len, struct memory *out, struct err *err);
void memory_format(const struct memory *m, struct buf *out);
void memory_done(struct memory *m);

/* Whether a chunk is read together with one that lies before it, whatever is between them. */
bool memory_chunk_goes_on(const struct memory_chunk *before, const struct memory_chunk *c);
/* Whether bytes of a chunk can be what it says: limits of `stored`, `pages` and `codec`. */
bool memory_chunk_is_sound(const struct memory_chunk *c);
bool memory_has_changes(const struct memory_chunk *c);
/* The bases of a chunk of changes.  returns how many; of another chunk 0 */
size_t memory_bases(const struct memory *m, uint32_t chunk, const struct memory_base **out);

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
    uint64_t places;    /* runs of bytes in packs, between holes of more than MEMORY_HOLE */
    uint64_t changes;   /* of `different`: stored as what differs from another page */
};

struct memory_totals memory_totals(const struct memory *m);

/* The working set of a checkpoint: the pages that a restored program touched first, packed one
 * after another so that the next restore reads them at once and before all others.
 *
 * It is made by a restore, so it is no part of the checkpoint, which never changes, but lies beside
 * it: <base>/.workingset/<id>, written with one rename, or in object storage the object
 * workingset/<id>, written with one put.  It only says what to bring in first: a
 * missing, damaged or foreign one costs time, nothing else.  Its bytes are as much trusted as the
 * checkpoint's directory is; whoever may write there decides what the program becomes.  Against
 * damage every byte is under a digest: the tables under one of their own, which also names the
 * memory map it belongs to, each chunk under the one in the table (docs/formats/workingset.md).
 *
 * Threads: constant after it was opened; chunks may be read by several threads.
 */
#pragma once

#include "backend/backend.h"
#include "base/buf.h"
#include "base/err.h"
#include "store/inflow.h"
#include "store/page_reader.h"

#include <stdint.h>

#define WORKINGSET_DIR ".workingset"
#define WORKINGSET_PREFIX "workingset/" /* of keys in object storage */
#define WORKINGSET_PAGES_MAX ((uint64_t)1 << 22)
#define WORKINGSET_TABLE_MAX ((size_t)80 << 20)

/* Where the record of a checkpoint is, or would be. */
struct workingset_place {
    int base;                /* the directory of checkpoints, or one for a file on its way */
    char *name;              /* the checkpoint's id, or the key of an object; no slash in an id */
    struct backend *backend; /* borrowed; NULL: it is a file beneath `base` */
};

#define WORKINGSET_NOWHERE                                                                         \
    {                                                                                              \
        .base = -1                                                                                 \
    }

void workingset_place_done(struct workingset_place *p);

/* Pages that follow each other in a stream (store/memory.h). */
struct workingset_extent {
    uint32_t stream;
    uint32_t pages; /* at least 1 */
    uint64_t first;
};

struct workingset_chunk {
    struct digest digest; /* of the bytes as they are stored */
    uint64_t offset;
    uint32_t stored;
    uint16_t pages; /* MEMORY_CHUNK_PAGES, fewer in the last */
    uint16_t codec;
};

struct workingset {
    struct digest memory; /* the manifest's digest of the memory map */
    struct workingset_extent *extents;
    struct workingset_chunk *chunks; /* hold the pages of the extents, in this order */
    size_t n_extents, n_chunks;
    uint64_t pages;
    int fd;                        /* of a file, else -1 */
    struct backend_object *object; /* or this; neither: parsed only */
    struct inflow *inflow;         /* see workingset_fetch() */
};

#define WORKINGSET_INIT                                                                            \
    {                                                                                              \
        .fd = -1                                                                                   \
    }

/* The tables, and their sizes, from the first bytes of a file of `file_size` bytes.
 * errors RC_CORRUPT, RC_UNSUPPORTED (newer format).  out: the caller's, workingset_done() */
enum rc workingset_parse(const void *data, size_t len, uint64_t file_size, struct workingset *out,
                         struct err *err);

/* The working set of a checkpoint.
 * errors  RC_NOT_FOUND (none, or of another memory map), RC_CORRUPT, RC_UNSUPPORTED, RC_IO; of
 *         object storage also RC_DENIED, RC_UNAVAILABLE */
enum rc workingset_open(const struct workingset_place *at, const struct digest *memory,
                        struct workingset *out, struct err *err);
/* Have its chunks fetched before they are asked for, from the first to the last, where that helps:
 * for who will read each of them once, in this order, with any number of threads.  After the last
 * fork. */
void workingset_fetch(struct workingset *w);
/* Read, verify and expand a chunk.
 * scratch, out  MEMORY_CHUNK bytes each
 * errors        RC_CORRUPT, RC_IO, RC_NOT_FOUND (an object that is gone), RC_UNAVAILABLE */
enum rc workingset_chunk(const struct workingset *w, size_t chunk, void *scratch, void *out,
                         struct err *err);
void workingset_done(struct workingset *w);

/* Write one, replacing an older one; the pages come out of the packs.
 * extents  borrowed; at most WORKINGSET_PAGES_MAX pages
 * errors   RC_UNAVAILABLE (somebody else is writing it; no connection), RC_DENIED (read-only),
 *          RC_CORRUPT (a chunk), RC_NO_SPACE, RC_IO */
enum rc workingset_write(const struct workingset_place *at, const struct digest *memory,
                         const struct workingset_extent *extents, size_t n,
                         const struct page_reader *pages, struct err *err);
/* Remove the one of a checkpoint, if there is one. */
void workingset_remove(const struct workingset_place *at);

/* Pages of a checkpoint out of packs: read, verified, expanded.
 *
 * Threads: a reader may be used by several threads at once.
 */
#pragma once

#include "backend/backend.h"
#include "store/domain.h"
#include "store/memory.h"

struct page_reader;

/* Open the packs that a memory map names; they stay readable when they are collected meanwhile, or
 * reading them fails.
 * b, m    must outlive the reader
 * d       the domain of the packs, used only here; NULL = none
 * out     the caller's, page_reader_freep()
 * errors  RC_CORRUPT (a pack is missing or too short, where that can be told without asking over
 *         the network: see page_reader_check()), RC_DENIED (the packs are encrypted, and no
 *         domain was given), RC_UNAVAILABLE, RC_IO */
enum rc page_reader_open(struct backend *b, const struct domain *d, const struct memory *m,
                         struct page_reader **out, struct err *err);
void page_reader_freep(struct page_reader **p);
/* Look whether every pack is there, as long as it should be.
 * errors  RC_CORRUPT (which is missing or too short), RC_UNAVAILABLE, RC_IO */
enum rc page_reader_check(const struct page_reader *r, struct err *err);
/* As backend_before_fork() and backend_after_fork(): before a fork() whose child will use the
 * reader, and in that child.  Keys go with it; page_reader_forked() is for the parent, whose next
 * child has none, and page_reader_forget() for a process that only hands the reader on and wipes
 * its own. */
void page_reader_before_fork(const struct page_reader *r);
void page_reader_after_fork(const struct page_reader *r);
void page_reader_forked(const struct page_reader *r);
void page_reader_forget(const struct page_reader *r);
const struct memory *page_reader_memory(const struct page_reader *r);

/* How the storage is read fast. */
struct backend_pace page_reader_pace(const struct page_reader *r);

/* Read a part of a pack as it is stored, for page_reader_expand().
 * errors  RC_CORRUPT (the pack is missing, or ends before), RC_UNAVAILABLE, RC_IO */
enum rc page_reader_stored(const struct page_reader *r, uint32_t pack, uint64_t offset, void *data,
                           size_t len, struct err *err);
/* Verify and expand a chunk that was read so; if it is not right, read it once more where another
 * read may give other bytes.
 * data     its chunk->stored bytes; they are changed
 * out, errors  as for page_reader_chunk() */
enum rc page_reader_expand(const struct page_reader *r, uint32_t chunk, void *data, void *out,
                           struct err *err);

/* Read one chunk.  Its bytes are compared with its digest, or decrypted with its tag, before they
 * are expanded.  Of changes the bases are read, too, and what comes out is compared with a digest
 * again.
 * scratch  MEMORY_CHUNK bytes
 * out      MEMORY_CHUNK bytes, of which chunk->pages pages are set
 * errors   RC_CORRUPT (the chunk is named), RC_UNAVAILABLE, RC_IO */
enum rc page_reader_chunk(const struct page_reader *r, uint32_t chunk, void *scratch, void *out,
                          struct err *err);

/* Read consecutive pages of a page image.
 * errors  also RC_CORRUPT when the image has no such pages */
enum rc page_reader_pages(const struct page_reader *r, uint32_t stream, uint64_t first, uint64_t n,
                          void *out, struct err *err);

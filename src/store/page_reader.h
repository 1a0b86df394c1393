/* Pages of a checkpoint out of packs: read, verified, expanded.
 *
 * Threads: a reader may be used by several threads at once.
 */
#pragma once

#include "backend/backend.h"
#include "store/domain.h"
#include "store/memory.h"

struct page_reader;

/* Open the packs that a memory map names; they stay readable when they are collected meanwhile.
 * b, m    must outlive the reader
 * d       the domain of the packs, used only here; NULL = none
 * out     the caller's, page_reader_freep()
 * errors  RC_CORRUPT (a pack is missing or too short), RC_DENIED (the packs are encrypted, and no
 *         domain was given), RC_UNAVAILABLE, RC_IO */
enum rc page_reader_open(struct backend *b, const struct domain *d, const struct memory *m,
                         struct page_reader **out, struct err *err);
void page_reader_freep(struct page_reader **p);
/* See backend_before_fork() and backend_after_fork(). */
void page_reader_before_fork(const struct page_reader *r);
void page_reader_after_fork(const struct page_reader *r);
const struct memory *page_reader_memory(const struct page_reader *r);

/* Read one chunk.  Its bytes are compared with its digest, or decrypted with its tag, before they
 * are expanded.
 * scratch  MEMORY_CHUNK bytes
 * out      MEMORY_CHUNK bytes, of which chunk->pages pages are set
 * errors   RC_CORRUPT (the chunk is named), RC_UNAVAILABLE, RC_IO */
enum rc page_reader_chunk(const struct page_reader *r, uint32_t chunk, void *scratch, void *out,
                          struct err *err);

/* Read consecutive pages of a page image.
 * errors  also RC_CORRUPT when the image has no such pages */
enum rc page_reader_pages(const struct page_reader *r, uint32_t stream, uint64_t first, uint64_t n,
                          void *out, struct err *err);

/* Read and expand every chunk.
 * done  counted up atomically by the bytes read; may be NULL */
enum rc page_reader_verify(const struct page_reader *r, unsigned threads, uint64_t *done,
                           struct err *err);

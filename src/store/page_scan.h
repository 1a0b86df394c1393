/* Many pages of a checkpoint, each to a place of its own, as fast as the storage gives them.
 *
 * A caller says which pages it wants, then begins.  Chunks that are neighbours in a pack are read
 * together; a thread reads such a run and then verifies, expands and hands on its chunks, while
 * others read theirs: so storage, network and processors work at the same time.  A chunk is read
 * and expanded once, however often its pages are wanted, and memory is bounded by
 * PAGE_SCAN_MEMORY, whatever the checkpoint's size, but for 24 bytes for each wanted extent.
 *
 * Threads: a scan belongs to one thread; what it calls is called by several.
 */
#pragma once

#include "store/page_reader.h"

#include <stddef.h>
#include <stdint.h>

#define PAGE_SCAN_MEMORY ((size_t)128 << 20) /* of all buffers */

struct page_scan;

/* Pages of a chunk that go to one place, one after another. */
struct page_piece {
    uint64_t to;    /* the caller's: an address, an offset */
    uint32_t place; /* the caller's: a process, a file */
    uint32_t chunk;
    uint16_t at; /* first page inside the chunk */
    uint16_t pages;
};

/* Take what is wanted of a chunk.
 * pieces  by place, then by `to`
 * pages   of the whole chunk
 * An error ends the scan and is what it returns. */
typedef enum rc page_visit(void *arg, const struct page_piece *pieces, size_t n,
                           const uint8_t *pages, struct err *err);

/* r: must outlive the scan.  The result is the caller's, page_scan_freep(). */
struct page_scan *page_scan_new(const struct page_reader *r);

/* Want pages first..first+n-1 of a stream at `place`, from `to` on.  Those that are zero are not
 * handed on.
 * errors RC_CORRUPT (the stream has no such pages) */
enum rc page_scan_want(struct page_scan *s, uint32_t stream, uint64_t first, uint64_t n,
                       uint32_t place, uint64_t to, struct err *err);
/* Pages that are wanted and not zero. */
uint64_t page_scan_pages(const struct page_scan *s);

/* Begin to read, as far as memory allows; nothing is handed on before page_scan_finish().
 * visit, arg  borrowed until the end */
void page_scan_begin(struct page_scan *s, page_visit *visit, void *arg);
/* Hand on everything, or until something fails.
 * errors  those of page_reader_chunk() and of the visit */
enum rc page_scan_finish(struct page_scan *s, struct err *err);
/* Waits for reads that are under way; the rest is not read.  NULL is fine. */
void page_scan_freep(struct page_scan **p);

/* Read, verify and expand every chunk.
 * done  counted up atomically by the bytes read; may be NULL */
enum rc page_scan_verify(const struct page_reader *r, uint64_t *done, struct err *err);

/* Pages into packs: pages are named, those that the store has are only referred to, the rest is
 * compressed and appended to new packs, by several threads.
 *
 * Pages arrive in buffers that were allocated and touched before, so that a frozen program waits
 * for nothing but one copy of its memory.  While the writer is *held* it
 * only buffers, until the buffers are full: then storing begins and the copy waits for it, so that
 * the memory used never exceeds what was given.
 *
 * Threads: buffers may be taken and given by several threads at once, the rest is for one.
 */
#pragma once

#include "backend/backend.h"
#include "base/cancel.h"
#include "store/domain.h"
#include "store/memory.h"
#include "store/page_past.h"

#include <stdbool.h>

struct page_writer;

struct page_writer_options {
    struct backend *backend;     /* where packs go; must outlive the writer */
    const struct domain *domain; /* to encrypt for, NULL = none; must outlive the writer */
    bool alone; /* refer to no page that the store has: nobody vouches for its packs' indexes */
    enum compress_codec codec;
    unsigned threads;    /* that compress, at least 1 */
    size_t buffer_bytes; /* for pages that wait; at least a few MiB are taken */
    uint64_t
        expect_pages; /* about; 2 % of their size is used to recognise pages, at least 32 MiB */
    /* Names of packs that are likely to have these pages, most likely first; borrowed for the
     * opening.  After them the newest of the store are looked into. */
    char *const *prefer;
    size_t n_prefer;
    /* An earlier checkpoint of the same domain, whose packs are held, for page_writer_like(); NULL
     * = none.  Must outlive the writer.  Not used with `alone`. */
    const struct page_past *past;
    /* Limits of what is remembered, for 0 by expect_pages: pages of the store, pages at all, and
     * packs that are looked into.  They cost only space in the store, never a page. */
    size_t known_max, table_max, packs_max;
};

struct page_writer_totals {
    uint64_t pages;   /* in streams */
    uint64_t zero;    /* of these, not stored */
    uint64_t known;   /* of these, the store had them (or this checkpoint, elsewhere; of pages that
                         are in a draft only the former are counted) */
    uint64_t changed; /* of these, stored as what differs from an earlier page */
    uint64_t written; /* bytes of new packs */
};

/* Begin: makes buffers, and threads that first learn what the store has.
 * out     the caller's, page_writer_freep()
 * errors  RC_IO, or what listing packs met.  A pack that cannot be read is not referred to: that it
 *         is bad is for a scrub to say. */
enum rc page_writer_open(const struct page_writer_options *o, struct page_writer **out,
                         struct err *err);

/* Announce a stream; every page of it must be given.
 * out     borrowed from the writer
 * errors  RC_EXISTS (the id was announced before), RC_TOO_BIG (PAGE_STREAM_MAX) */
#define PAGE_STREAM_MAX ((uint64_t)1 << 31) /* pages: 8 TiB */
struct page_input;
enum rc page_writer_input(struct page_writer *w, uint32_t id, uint64_t pages,
                          struct page_input **out, struct err *err);

/* Announce pages of no stream: what was read while the program ran, and may be of use.  Those that
 * are not referred to by a stream in the end are no part of the checkpoint.
 * out  borrowed from the writer; give pages as to a stream, in any order, or not at all */
enum rc page_writer_draft(struct page_writer *w, uint64_t pages, struct page_input **out,
                          struct err *err);

/* Pages first..first+n-1 are probably much like those of a stream of the past checkpoint from page
 * `at` on: where that is so, only what differs is stored.  A wrong guess costs time, nothing else.
 * In ascending order of `first`, and before any page of the input is given. */
void page_writer_like(const struct page_writer *w, struct page_input *in, uint64_t first,
                      uint64_t n, uint32_t stream, uint64_t at);

/* Instead of giving pages first..first+n-1 of a stream: they are those of a draft from `at` on.
 * The draft's must have been given, at the latest before page_writer_finish(). */
void page_writer_refer(struct page_writer *w, struct page_input *in, uint64_t first, uint64_t n,
                       const struct page_input *draft, uint64_t at);

/* Who waits for a buffer from now on also heeds the word that it is given up.
 * cancel  borrowed until the next call; NULL = waits as long as it takes */
void page_writer_heed(struct page_writer *w, const struct cancel *cancel);

/* A buffer for MEMORY_CHUNK_PAGES pages; waits for one.  NULL: storing has failed, or is given up,
 * *err says how. */
struct page_block;
struct page_block *page_writer_take(struct page_writer *w, struct err *err);
void *page_block_data(struct page_block *b);
/* Give a buffer back with pages first..first+n-1 of a stream in it; n 0: with nothing. */
void page_writer_give(struct page_writer *w, struct page_block *b, struct page_input *in,
                      uint64_t first, unsigned n);

/* Announce a stream that is a file of whole pages.
 * out     as for page_writer_input(); then page_writer_read()
 * errors  RC_CORRUPT (no whole pages), or of page_writer_input() */
enum rc page_writer_file(struct page_writer *w, uint32_t id, int fd, struct page_input **out,
                         struct err *err);
/* Give all its pages.  errors  RC_CORRUPT (fewer than it began with), or what storing met */
enum rc page_writer_read(struct page_writer *w, struct page_input *in, int fd, struct err *err);

/* Bytes given so far, counted up atomically, for a progress display. */
const uint64_t *page_writer_counter(const struct page_writer *w);

/* Wait until all that was given is in packs or in a chunk that is being filled.  Nobody may take
 * buffers meanwhile, and the writer is not held.  errors  what storing met */
enum rc page_writer_drain(struct page_writer *w, struct err *err);

/* Only buffer from now on, or store what is buffered. */
void page_writer_hold(struct page_writer *w, bool hold);

/* Store the rest.
 * out      the caller's, memory_done()
 * errors   RC_INVALID (a page was not given), or what storing met; then new packs may be in the
 *          store that nobody refers to
 * durable  on RC_OK every pack that `out` names is on disk */
enum rc page_writer_finish(struct page_writer *w, struct memory *out,
                           struct page_writer_totals *totals, struct err *err);

/* End; packs that were not finished leave nothing behind.  NULL is fine. */
void page_writer_freep(struct page_writer **p);

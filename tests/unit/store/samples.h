/* Pages with known content, written and read back.  Threads: the test's. */
#pragma once

#include "backend/backend.h"
#include "store/page_writer.h"

/* The content of a page by its number; 0 is the zero page.  Pages of one number are equal; half of
 * a page does not compress. */
void sample_page(uint64_t number, void *out);

/* Give pages with these numbers as a stream. */
enum rc sample_give(struct page_writer *w, uint32_t id, const uint64_t *numbers, uint64_t n,
                    struct err *err);

/* Give a file as a stream. */
enum rc sample_file(struct page_writer *w, uint32_t id, int fd, struct err *err);

/* One stream into packs of a storage. */
enum rc sample_write(struct backend *b, uint32_t id, const uint64_t *numbers, uint64_t n,
                     struct memory *out, struct page_writer_totals *totals, struct err *err);

/* Read a stream page by page and compare.  errors RC_CONFLICT: readable but other content */
enum rc sample_check(struct backend *b, const struct memory *m, uint32_t id,
                     const uint64_t *numbers, uint64_t n, struct err *err);

/* Keys of all objects with a prefix; more than 64 are too many.  out: each the caller's (free) */
size_t sample_keys(struct backend *b, const char *prefix, char *out[64]);
/* Replace an object by other bytes. */
void sample_replace(struct backend *b, const char *key, const void *data, size_t len);
/* Its bytes; the caller's (free). */
char *sample_read(struct backend *b, const char *key, size_t *out_len);

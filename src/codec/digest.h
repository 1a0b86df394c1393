/* BLAKE3 digests of bytes and of files.
 *
 * The digest of a *file* is not the BLAKE3 of its bytes but BLAKE3(d0 ‖ d1 ‖ … ‖ length), where d_i
 * is the BLAKE3 of the i-th segment of 4 MiB and length is the file's, 64 bits little-endian.  So
 * segments can be hashed by several threads, in any order, and while the file is still growing.
 */
#pragma once

#include "base/cancel.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIGEST_LEN 32
#define DIGEST_TEXT_LEN (7 + 2 * DIGEST_LEN) /* "blake3:" and lower-case hex, without the NUL */
#define DIGEST_SEGMENT ((size_t)4 << 20)

struct digest {
    uint8_t bytes[DIGEST_LEN];
};

void digest_of(const void *data, size_t len, struct digest *out);
bool digest_equal(const struct digest *a, const struct digest *b);

void digest_format(const struct digest *d, char out[DIGEST_TEXT_LEN + 1]);
/* errors RC_INVALID */
enum rc digest_parse(const char *text, size_t len, struct digest *out, struct err *err);

/* Digest of a whole file.
 * fd       readable, borrowed; its offset is not used
 * threads  at least 1
 * done     counted up by the bytes read, atomically, for a progress display; may be NULL */
enum rc digest_file(int fd, unsigned threads, uint64_t *done, uint64_t *out_len, struct digest *out,
                    struct err *err);

/* The same, until `cancel` (which may be NULL) is asked.  errors also RC_CANCELLED */
enum rc digest_file_until(int fd, unsigned threads, uint64_t *done, const struct cancel *cancel,
                          uint64_t *out_len, struct digest *out, struct err *err);

/* The digest of bytes that come in parts. */
struct digest_sum;
struct digest_sum *digest_sum_new(void);
void digest_sum_add(struct digest_sum *s, const void *data, size_t len);
/* Of all since the last of these calls. */
void digest_sum_take(struct digest_sum *s, struct digest *out);
void digest_sum_freep(struct digest_sum **p);

/* The digest of a file from those of its segments, in order. */
void digest_of_segments(const struct digest *segments, uint64_t len, struct digest *out);
/* The digest that a file of these bytes has. */
void digest_file_bytes(const void *data, size_t len, struct digest *out);

/* Digest of a file that another process is still writing, from its start to its end: threads hash
 * each segment as soon as it is complete.  The writer must not change what it has written. */
struct digest_follow;

/* fd: readable, kept open by the caller until digest_follow_finish().  out: the caller's. */
enum rc digest_follow_start(int fd, unsigned threads, struct digest_follow **out, struct err *err);
/* The file is complete: hash the rest and give the result.  Frees the object, also on failure. */
enum rc digest_follow_finish(struct digest_follow *f, uint64_t *out_len, struct digest *out,
                             struct err *err);

/* A page image of CRIU's, pages-<id>.img, written by us in its place: the pages that CRIU was kept
 * from (criu/hidden.h) come from the processes, the others from the image that CRIU has written.
 * Several threads take one segment of the digest after another (codec/digest.h), so that each page
 * is read once: it is digested and written while it is in a processor's cache.
 *
 * Threads: an object belongs to one thread; it starts its own.
 */
#pragma once

#include "base/cancel.h"
#include "base/err.h"
#include "codec/digest.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct page_image_piece {
    pid_t pid;     /* 0: CRIU's image */
    uint64_t from; /* address of the process, or offset in CRIU's image */
    uint64_t at;   /* first page in the new image */
    uint64_t pages;
};

struct page_image {
    struct page_image_piece *list;
    size_t n;
    uint64_t pages;
    const struct cancel *cancel; /* ends the writing early, borrowed; or NULL */
};

/* Append pages. */
void page_image_add(struct page_image *p, pid_t pid, uint64_t from, uint64_t pages);

/* Write it; CRIU's image of this name is replaced.
 * done      counted up by the bytes written, atomically
 * out       the file's digest
 * errors    RC_NOT_FOUND, RC_DENIED (a process), RC_CORRUPT (CRIU's image is too short),
 *           RC_NO_SPACE, RC_CANCELLED, RC_IO; then CRIU's image is as it was
 * durable   no */
enum rc page_image_write(const struct page_image *p, int dirfd, const char *name, uint64_t *done,
                         struct digest *out, struct err *err);

void page_image_done(struct page_image *p); /* for CLEANUP() */

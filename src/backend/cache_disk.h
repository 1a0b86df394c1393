/* Blocks of remote objects on the local disk, shared by all processes of a machine.
 *
 *   <dir>/<2 hex digits>/<name>   a block: its bytes, a digest for each CACHE_SEGMENT of them, and
 *                                 a trailer
 *   <dir>/locks/<2 hex digits>    who fetches a block holds one of these
 *   <dir>/usage                   bytes of all blocks, kept by all processes together
 *   <dir>/clean                   locked by who makes room
 *
 * Nothing is lost with a block, so nothing is synced: what a crash has left half is known by its
 * digests, removed and fetched again.  Every read is verified.  Blocks that were not used for the
 * longest time are removed first (their modification time is when they were used).
 *
 * The directory must belong to us and be writable by nobody else: whoever can write a block and its
 * digest could give it any content.
 *
 * Threads: safe. */
#pragma once

#include "base/err.h"
#include "codec/digest.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CACHE_BLOCK ((size_t)1 << 20)
#define CACHE_SEGMENT ((size_t)128 << 10)
#define CACHE_PATIENCE_S                                                                           \
    60 /* for somebody else who fetches a block; then everybody for himself                        \
        */

struct cache_disk;

/* A block: of which object (a digest of everything that makes it this content), and its number. */
struct cache_name {
    struct digest object;
    uint64_t number;
};

/* dir     made (0700) with its parents; borrowed
 * limit   bytes of all blocks
 * out     the caller's, cache_disk_freep()
 * errors  RC_DENIED (it belongs to somebody else, or others may write there), RC_NO_SPACE, RC_IO */
enum rc cache_disk_open(const char *dir, uint64_t limit, struct cache_disk **out, struct err *err);
void cache_disk_freep(struct cache_disk **disk);

/* Bytes offset..offset+len of a block.
 * errors  RC_NOT_FOUND (it is not there, or was damaged and is not there any more); no other */
enum rc cache_disk_read(struct cache_disk *c, const struct cache_name *n, size_t offset, void *data,
                        size_t len, struct err *err);
/* Keep a block of 1..CACHE_BLOCK bytes, and make room if that is needed.  What cannot be kept is
 * not. */
void cache_disk_write(struct cache_disk *c, const struct cache_name *n, const void *data,
                      size_t len);
/* Whether it was there. */
bool cache_disk_remove(struct cache_disk *c, const struct cache_name *n);

/* Be the one who fetches a block; waits for another one.
 * returns  a descriptor to close when it is done, or -1: nobody else can be waited for any longer
 */
int cache_disk_lock(struct cache_disk *c, const struct cache_name *n);

/* Bytes of all blocks. */
uint64_t cache_disk_usage(const struct cache_disk *c);

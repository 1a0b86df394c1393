/* Parts as a tar archive (POSIX pax, restricted), perhaps compressed, into a file that is open.
 * Threads: safe. */
#pragma once

#include "codec/sha256.h"
#include "exchange/export.h"
#include "exchange/parts.h"

struct tarball {
    uint64_t size;                     /* of the file */
    uint8_t digest[SHA256_LEN];        /* of the file */
    uint8_t digest_inside[SHA256_LEN]; /* of the archive before it was compressed */
};

/* fd: empty, writable.  done: may be NULL.
 * errors  those of part_read(), RC_NO_SPACE, RC_IO */
enum rc tarball_write(const struct parts *p, int fd, enum export_compression c, uint64_t *done,
                      struct tarball *out, struct err *err);

/* The files of a directory, plain or in folders, as an uncompressed archive.
 * errors  RC_IO ... */
enum rc tarball_of_tree(int dir, int fd, struct err *err);

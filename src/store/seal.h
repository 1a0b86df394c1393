/* A file of a checkpoint, encrypted: docs/formats/encryption.md.
 *
 *   header    64 bytes: "chrekenc", format, segment size, instance of the checkpoint, salt, size
 *   segments  of SEAL_SEGMENT bytes, the last one shorter; each followed by its tag
 *
 * Nonces: a file's key is derived from 24 random bytes in its header, that are drawn anew whenever
 * a file is written, and the nonce is the segment's number; so none comes twice under a key.  Bound
 * to each segment are the header, and with it the file's size and the making of the checkpoint that
 * it belongs to, the checkpoint's id and the file's name: a segment cannot stand in for another,
 * nor a file for one of another name, checkpoint or making.
 *
 * Threads: safe.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "store/domain.h"

#include <stdint.h>

#define SEAL_SEGMENT ((size_t)64 << 10)
#define SEAL_HEADER 64
#define SEAL_INSTANCE 16

/* What a sealed file is. */
struct seal_label {
    const uint8_t *instance; /* SEAL_INSTANCE random bytes, of one making of a checkpoint */
    const char *id;          /* of the checkpoint */
    const char *name;        /* of the file, as it is in the clear */
};

/* Encrypt a file.  from: read from its begin; to: written from where it stands. */
enum rc seal_write(const struct domain *d, const struct seal_label *l, int from, int to,
                   struct err *err);

/* Decrypt a file.  Each segment is verified before it is written.
 * from    read from its begin
 * errors  RC_CORRUPT (damaged, or another file), RC_CONFLICT (of another making of the checkpoint),
 *         RC_UNSUPPORTED (a newer format), RC_TOO_BIG (for the buffer), RC_IO */
enum rc seal_read(const struct domain *d, const struct seal_label *l, int from, int to,
                  struct err *err);
/* The same into a buffer. */
enum rc seal_read_bytes(const struct domain *d, const struct seal_label *l, int from,
                        struct buf *out, struct err *err);

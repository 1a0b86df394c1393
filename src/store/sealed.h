/* The files of an encrypted checkpoint.
 *
 * In its directory they are `sealed-1`, `sealed-2`, …, and `sealed-0` is a manifest of what they
 * are in the clear: names, sizes and digests, in this order.  Beside them are only checkpoint.done,
 * the manifest of the sealed files, and a metadata.json that tells nothing of the program; the
 * whole metadata.json is one of the sealed files, as is the memory map.  Each is a file of
 * store/seal.h.
 *
 * Threads: constant after it was opened.
 */
#pragma once

#include "base/err.h"
#include "store/domain.h"
#include "store/manifest.h"

#define SEALED_PREFIX "sealed-"

/* Encrypt the regular files of a directory into another.
 * m       names id, instance and key; the sealed files are added
 * total   bytes written are added
 * errors  what reading and writing met; then files may be in `to` */
enum rc sealed_write(const struct domain *d, int from, int to, struct manifest *m, uint64_t *total,
                     struct err *err);

struct sealed;

/* Look into an encrypted checkpoint.
 * dir, m  borrowed; must outlive it
 * d       kept, also on failure
 * errors  RC_CORRUPT, RC_CONFLICT (the manifest is of another making: an older one, put back) */
enum rc sealed_open(int dir, const struct manifest *m, struct domain *d, struct sealed **out,
                    struct err *err);
void sealed_freep(struct sealed **p);

/* What is in it, in the clear. */
const struct manifest *sealed_manifest(const struct sealed *s);
const struct domain *sealed_domain(const struct sealed *s);

/* Decrypt one file; nothing unverified is written.
 * name    one of the manifest
 * errors  RC_NOT_FOUND, RC_CORRUPT, RC_TOO_BIG (for the buffer), RC_NO_SPACE, RC_IO */
enum rc sealed_copy(const struct sealed *s, const char *name, int dirfd, struct err *err);
enum rc sealed_read(const struct sealed *s, const char *name, struct buf *out, struct err *err);

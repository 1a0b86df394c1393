/* The documents of a checkpoint archive (config.dump, spec.dump, status.dump), read for what our
 * metadata says, and written from it.  They are outside bytes: what is missing or of another type
 * is left out, and nothing that they name is ever fetched or opened.
 *
 * Threads: safe. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "store/metadata.h"

#define DESCRIBE_MAX ((size_t)8 << 20) /* bytes of one document */

struct documents {
    struct buf config, spec, status; /* empty = it has none */
};

/* Who made the archive: "podman", "cri-o", "containerd", or "criu" where nobody says. */
const char *describe_engine(const struct documents *d);
/* Set what is not set in the metadata.  errors RC_CORRUPT (one of them is no JSON) */
enum rc describe_read(const struct documents *d, struct metadata *m, struct err *err);

/* The other way: documents that other engines' tools can read. */
void describe_write(const struct metadata *m, struct documents *out);
/* Of the container, for people: its own, else the checkpoint's; the caller's (free). */
char *describe_name(const struct metadata *m);

void documents_done(struct documents *d);

/* What a name in a store's directory stands for: a checkpoint, or something that somebody keeps
 * there.  A store may be opened on any directory, so only what shows that it is a checkpoint's is
 * ever listed, replaced or removed.
 *
 * A directory is a checkpoint's, finished or not, ours or the reference implementation's, when one
 * of these says so by its content: checkpoint.done, the manifest, metadata.json, the memory map,
 * CRIU's inventory.  One document may be damaged without making a stranger of it.
 *
 * A staging directory, which may hold anything, is known by its name:
 * "<id, of a long one the beginning>.tmp-<8 random digits><8 of the BLAKE3 of all before>".
 *
 * Threads: safe. */
#pragma once

#include "base/err.h"

#include <stdbool.h>

enum identity {
    IDENTITY_NOTHING, /* nothing is there, or an empty directory */
    IDENTITY_CHECKPOINT,
    IDENTITY_FOREIGN, /* not ours to touch */
    IDENTITY_COUNT_,
};

/* What `name` in the directory `base` is; a symbolic link is foreign.
 * errors  RC_DENIED, RC_IO: it cannot be told */
enum rc identity_of(int base, const char *name, enum identity *out, struct err *err);
/* The same for a directory that is open. */
enum rc identity_of_dir(int dir, enum identity *out, struct err *err);

/* A new name for a staging directory of this checkpoint.  Returns: the caller's (free) */
char *identity_staging_name(const char *id);
bool identity_is_staging(const char *name);

/* The mounts of this container as CRIU's external resources. */
#pragma once

#include "base/err.h"

#include <stddef.h>

struct mounts;
struct store_entry;

/* For a checkpoint whose mount namespace CRIU has dumped, `mnt[/path]:/path` for the root, every
 * mount point of ours, and the masked, read-only, bound and other mounted paths that its
 * metadata.json lists; a volume that only the original had becomes a plain directory.  Ours need
 * none.
 * out     NULL-terminated, the caller's (mounts_freep); NULL when none are needed
 * errors  RC_CORRUPT (metadata.json), RC_DENIED, RC_IO */
enum rc mounts_external(const struct store_entry *entry, char ***out, struct err *err);

/* Make a plain directory of each volume in the text of metadata.json that is not mounted here.
 * errors  RC_CORRUPT, RC_DENIED, RC_IO */
enum rc mounts_make_missing(const char *metadata, size_t len, struct err *err);

/* The list by itself, from what is mounted now and the text of metadata.json.  Where that lists no
 * masked paths, those that runtimes mask by themselves count.
 * hook  the mapping of the NVIDIA toolkit's mount, or NULL
 * out   as above */
enum rc mounts_map(const struct mounts *now, const char *metadata, size_t len, const char *hook,
                   char ***out, struct err *err);
void mounts_freep(char ***list);

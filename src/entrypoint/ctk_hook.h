/* The mount of the NVIDIA Container Toolkit: a tmpfs at /run/nvidia-ctk-hook<UUID>, at another path
 * in each container, which CRIU looks for at the old one.
 *
 * Texts are outside bytes.  Threads: safe.
 */
#pragma once

#include "base/err.h"

#include <stddef.h>

/* Where it was, from the log of the dump (CRIU names mounts as "@ ./path"), else from the mounts of
 * metadata.json; NULL: nowhere.  Returns the caller's (free). */
char *ctk_hook_old(const char *log, const char *metadata, size_t metadata_len);
/* Where it is now, from /proc/1/mountinfo; NULL: nowhere.  Returns the caller's (free). */
char *ctk_hook_new(const char *mountinfo);

/* Let the old path lead to the new one, and make CRIU's external mount "mnt[old]:new" of them.
 * root    directory that both paths are in, "" for /
 * out     the caller's (free)
 * errors  RC_INVALID (an old path that leads elsewhere), RC_DENIED, RC_IO */
enum rc ctk_hook_map(const char *root, const char *old_path, const char *new_path, char **out,
                     struct err *err);

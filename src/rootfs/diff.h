/* What a container's workload has changed in its root file system: the overlay's upper directory,
 * as rootfs-diff.tar (what is there now) and deleted-files.json (what is not there any more).
 *
 * Whiteouts (character devices 0:0, or the `.wh.` names of other storage drivers) become deletions,
 * and so does what an opaque directory hides; a deleted name that JSON cannot hold becomes a `.wh.`
 * name in the archive.  A directory of which nobody can say all that it hides stays an opaque one
 * in the archive.  Not captured: what is mounted into the container, the files that the runtime
 * writes (/etc/hosts, /etc/hostname, /etc/resolv.conf, /run/secrets), sockets. Threads: safe.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct diff_source {
    int upper;        /* the overlay's upper directory, borrowed */
    const int *lower; /* its lower directories, borrowed */
    size_t n_lower;
    bool unseen_lower;         /* there are more of them, which cannot be looked into */
    const char *const *mounts; /* mount points inside the container, relative, NULL-terminated */
};

/* Write rootfs-diff.tar, and deleted-files.json and deleted.files if something was deleted, into a
 * checkpoint's directory.
 * out_diff, out_deleted  whether there is such a file
 * errors                 RC_NO_SPACE, RC_TOO_BIG (too many deletions), RC_IO */
enum rc rootfs_capture(const struct diff_source *from, int ckptfd, bool *out_diff,
                       bool *out_deleted, struct err *err);

/* Bring the root file system of a container to the state that a checkpoint has recorded: the files
 * that the workload had changed (rootfs-diff.tar), then those that it had deleted
 * (deleted-files.json, or deleted.files).
 *
 * What belongs to the new container stays: its mounts, /etc/hosts, /etc/hostname, /etc/resolv.conf,
 * /run/secrets.  Nothing is done outside `rootfd`, and no symbolic link is followed.
 * Threads: safe.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define ROOTFS_DIFF "rootfs-diff.tar"
#define ROOTFS_DELETED "deleted-files.json"
#define ROOTFS_DELETED_OLD "deleted.files"

/* Extract the files; what is there is replaced, whatever it is.  Whiteouts in the archive, as one
 * has them that was made of an upper directory by tar, are deletions.
 * errors  RC_CORRUPT (no archive, or one that reaches outside), RC_NO_SPACE, RC_DENIED, RC_IO
 *         (also an owner or an attribute that cannot be set), RC_CONFLICT (a mount is in the way)
 */
enum rc rootfs_apply_files(int ckptfd, int rootfd, struct err *err);

/* The same of an open archive, which may be a pipe, for who may not have the right to everything:
 * a directory that is there as it should be is left alone.
 * fd  borrowed */
enum rc rootfs_apply_stream(int fd, int rootfd, struct err *err);

/* Remove what was deleted.  What is not there any more is fine.
 * errors  RC_CORRUPT (no such list, or one that reaches outside), RC_IO */
enum rc rootfs_apply_deletions(int ckptfd, int rootfd, struct err *err);
/* The same of the list itself. */
enum rc rootfs_apply_deletion_list(const char *text, size_t len, int rootfd, struct err *err);

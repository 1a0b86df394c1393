/* Whole files and trees.  Paths are relative to a directory descriptor (AT_FDCWD works).
 * Threads: safe; two writers of one name: the last rename wins. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Append a file's content to `out`.
 * max     bytes; a longer file is RC_TOO_BIG, as is one that does not fit the buffer's own limit
 * out     as before unless RC_OK
 * errors  RC_NOT_FOUND, RC_DENIED, RC_TOO_BIG, RC_IO */
enum rc fs_read_file(int dirfd, const char *path, size_t max, struct buf *out, struct err *err);

/* Write a file so that a reader sees the old content or the new, never a part, also after a crash.
 * durable  on RC_OK: data, name and directory are synced */
enum rc fs_write_atomic(int dirfd, const char *path, const void *data, size_t len, mode_t mode,
                        struct err *err);

/* The same without waiting for the disk: for files whose life is shorter than the machine's. */
enum rc fs_write_whole(int dirfd, const char *path, const void *data, size_t len, mode_t mode,
                       struct err *err);

/* Copy a file's content, of any size, so that a reader of the copy sees all of it or none; without
 * waiting for the disk.
 * errors  RC_NOT_FOUND, RC_DENIED, RC_NO_SPACE, RC_IO; then `to` is as it was */
enum rc fs_copy_file(int from_dir, const char *from, int to_dir, const char *to, mode_t mode,
                     struct err *err);

/* Make a directory and its parents, mode as given for those that are made. */
enum rc fs_mkdirs(const char *path, mode_t mode, struct err *err);

/* Remove a file or a whole tree.  Nothing there is RC_OK.  Follows no link below the directory that
 * `path` is in, and enters no mount, be it another file system or a part of the same one: `path`
 * itself or a directory in it that something is mounted on is RC_INVALID and keeps its content;
 * what stood beside it may be gone.
 * errors  RC_INVALID (a mount, deeper than 128, or `path` ends with . or ..), RC_DENIED, RC_IO */
enum rc fs_remove_tree(int dirfd, const char *path, struct err *err);

/* A directory in memory (tmpfs) that is mounted nowhere: nobody can name it, and it goes with its
 * last descriptor, also when its user is killed.
 * errors  RC_DENIED (needs CAP_SYS_ADMIN), RC_UNSUPPORTED, RC_IO */
enum rc fs_private_dir(int *out_fd, struct err *err);

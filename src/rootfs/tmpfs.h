/* Save and restore the content of a temporary file system, such as /dev/shm, as a tar archive.
 *
 * What CRIU leaves to us when it runs inside a mount namespace: files (with holes kept),
 * directories, symbolic links, fifos, owners, modes, times, extended attributes, hard links.  Unix
 * sockets are CRIU's own business and left out.
 *
 * Extraction trusts nothing: no absolute path, no `..`, no link followed, no device node.
 * Threads: safe.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* Archive everything below `dirfd` into `name`, made in `outfd`.  Nothing there: no file is made.
 * out_any     whether there was something
 * errors      RC_NO_SPACE, RC_IO */
enum rc tmpfs_save(int dirfd, int outfd, const char *name, bool *out_any, struct err *err);

struct archive_entry;

/* The same, asking about each entry.
 * skip  true: leave it out (of a directory only itself, not what is in it); may change the entry.
 *       path: relative, without a leading "./"; of the root "" */
enum rc tmpfs_save_filtered(int dirfd, int outfd, const char *name,
                            bool (*skip)(void *arg, const char *path, struct archive_entry *e),
                            void *arg, bool *out_any, struct err *err);
/* For CLEANUP(). */
void tmpfs_entry_freep(struct archive_entry **e);

/* Extract the archive `name` of `infd` below `dirfd`.
 * errors  RC_CORRUPT (no archive of ours, or one that reaches outside), RC_NO_SPACE, RC_IO */
enum rc tmpfs_load(int infd, const char *name, int dirfd, struct err *err);

/* The same, of an open archive, which may be a pipe, asking about each entry before it is
 * extracted.
 * fd      borrowed; read from where it stands
 * before  may act on what is there; *out_skip: it is not extracted.  Paths are relative, without a
 *         leading "./" and without ".."; of the root ""; NULL: all is extracted */
enum rc tmpfs_load_stream(int fd, int dirfd,
                          enum rc (*before)(void *arg, const char *path, struct archive_entry *e,
                                            bool *out_skip, struct err *err),
                          void *arg, struct err *err);

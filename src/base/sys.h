/* The system calls whose failure the tests must be able to cause.
 *
 * Each wrapper is the call itself (EINTR retried where that is safe) plus one fault point.  In a
 * release build the fault point is a constant false.  Code outside base/ calls these, never the
 * plain ones; tools/check_layers.py refuses the plain names.
 * Thread: safe, except that a fault is armed while no other thread makes such calls.
 */
#pragma once

#include "base/err.h"

#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

int sys_openat(int dirfd, const char *path, int flags, mode_t mode);
int sys_fsync(int fd);
/* ns that all threads together have waited in sys_fsync() since the process began. */
uint64_t sys_synced_ns(void);
/* Give an O_TMPFILE descriptor a name; fails with EEXIST rather than replace. */
int sys_link_fd(int fd, int dirfd, const char *name);

/* Open a path that comes from outside, beneath `dirfd` as its root: `..` and symbolic links
 * cannot lead out of it (openat2 with RESOLVE_IN_ROOT, plus `resolve`). */
int sys_open_in_root(int dirfd, const char *path, int flags, mode_t mode, uint64_t resolve);
int sys_mkdirat(int dirfd, const char *path, mode_t mode);
/* Rename within one directory; flags as for renameat2(). */
int sys_rename(int dirfd, const char *from, const char *to, unsigned flags);
int sys_unlinkat(int dirfd, const char *path, int flags);
/* NULL: no more, or, if errno is not what it was before, a failure. */
struct dirent *sys_readdir(DIR *dir);

/* Write all `len` bytes or fail. */
enum rc sys_write_all(int fd, const void *data, size_t len, struct err *err);
/* The same at an offset. */
enum rc sys_pwrite_all(int fd, const void *data, size_t len, uint64_t offset, struct err *err);
/* Read until `cap` bytes or end of file; sets *out_len. */
enum rc sys_read_full(int fd, void *data, size_t cap, size_t *out_len, struct err *err);

/* For CLEANUP(): closes if >= 0, keeps errno. */
void fd_closep(int *fd);
/* Gives up ownership of an fd; leaves -1. */
int fd_steal(int *fd);

#ifdef FAULTS
enum fault_action { FAULT_FAIL, FAULT_CRASH };
/* Let the n-th fault point from now (0-based) fail with EIO, or end the process. */
void fault_arm(unsigned n, enum fault_action action);
void fault_disarm(void);
/* Fault points passed since the last arm/disarm. */
unsigned fault_passed(void);
#define FAULT_EXIT_STATUS 77
#endif

/* Which pages of a process have been written, without the process being asked: userfaultfd in the
 * asynchronous write-protect mode, Linux >= 6.7.
 *
 * A process gets a userfaultfd that it does not know of: we have it made inside (container/halt.h)
 * and take it out again.  Mappings that are registered with it can be protected
 * (pages_protect()); the kernel then takes the protection off a page when it is written, by itself.
 *
 * What a page that is still protected proves: since it was protected, nobody has written it, and
 * nothing else has come to its place.
 *   - A mapping that is unmapped, moved, or replaced takes its registration with it; a new one at
 *     the same place has none.  Only neighbours with the same registration are ever joined.
 *   - A page that is dropped (MADV_DONTNEED, MADV_FREE) takes its protection with it; what comes
 *     next is a page without.
 *   - A child does not inherit a registration.  After execve() the old one is of no use any more.
 *   - What is swapped out, moved in memory or split keeps its protection.
 * What it cannot see is memory that the kernel or a device has been lent before it was protected
 * and writes later, past the page tables.  So pages are to be protected only while the tree stands
 * still, when no call is under way, and only if written_check() finds nobody who could.
 *
 * Threads: safe.
 */
#pragma once

#include "base/err.h"
#include "container/halt.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Whether this kernel and our rights allow it. */
bool written_can(void);

/* Whether something else may write to the memory of a process: AIO, io_uring, XDP, pinned memory,
 * devices; or it uses userfaultfd itself.
 * errors  RC_UNSUPPORTED (what it is), RC_NOT_FOUND, RC_DENIED, RC_TOO_BIG */
enum rc written_check(pid_t pid, struct err *err);

/* Give a process a userfaultfd.  It lasts until it is closed; then all is as before.
 * out     the caller's (close)
 * errors  as halt_call(); RC_UNSUPPORTED, RC_DENIED */
enum rc written_attach(struct halt *h, pid_t pid, int *out, struct err *err);

/* Register mappings; those that are registered already stay so.
 * errors  RC_CONFLICT (somebody else has registered something there), RC_NOT_FOUND (the address
 *         space is gone), RC_UNSUPPORTED (no such mapping, or none of that kind) */
enum rc written_register(int uffd, uint64_t start, uint64_t end, struct err *err);

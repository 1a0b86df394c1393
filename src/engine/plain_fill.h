/* The memory of a plain checkpoint, written by several threads straight out of its page images into
 * the processes that CRIU has restored without it: process_vm_writev(), huge pages where a mapping
 * asks for them.  CRIU's own reading is bound by one page fault for each 4 KiB in one thread.
 *
 * Threads: a call ends its own before it returns. */
#pragma once

#include "base/err.h"
#include "engine/plain.h"

#include <stdint.h>
#include <sys/types.h>

/* Bring in what CRIU did not get, and verify all page images that have a digest, each byte as it is
 * written.  Every task must be stopped.  When this fails wrong bytes may have been written: the
 * processes must not run.
 * in_namespace  some process of the PID namespace that the tree is in
 * done          counted up atomically by the bytes written; may be NULL
 * errors        RC_CORRUPT (a page image), RC_NOT_FOUND (a process was not restored), RC_DENIED,
 *               RC_IO */
enum rc plain_fill(const struct plain *p, pid_t in_namespace, uint64_t *done, struct err *err);

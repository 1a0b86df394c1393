/* A process tree that is made to stand still for a moment, and to do system calls, by ptrace.
 *
 * While it stands still no thread of it is inside a system call: none writes memory, and the kernel
 * writes none for it, but for what was handed to it to be done later (AIO, io_uring, devices).
 * Sleeping calls are interrupted and go on afterwards as after a stop by job control.
 *
 * If we die, the kernel lets the tree go on; only inside halt_call(), for microseconds, would a
 * thread be left in the middle of our call instead of its own work.
 *
 * Threads: an object belongs to the thread that made it; ptrace knows threads.  That thread should
 * end soon after: a thread of the tree that did not stop in time is let go by that alone.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct halt;

/* Stop all threads of `root` and of its descendants, also of those that are born meanwhile.
 * deadline  monotonic ns
 * out       the caller's, halt_endp()
 * errors    RC_NOT_FOUND (no root), RC_DENIED, RC_CONFLICT (somebody traces it), RC_TIMEOUT (a
 *           thread waits in the kernel and does not stop); then all of them run, that one when
 *           our own thread ends */
enum rc halt_tree(pid_t root, uint64_t deadline, struct halt **out, struct err *err);

/* The processes that stand still.  Returns how many; *out is borrowed. */
size_t halt_processes(const struct halt *h, const pid_t **out);

/* Have a process do a system call; its seccomp filters are not asked.
 * out_result  what the call returns: >= 0, or a negative errno
 * errors      RC_UNSUPPORTED (no 64-bit x86 program, or one that redirects its system calls; not
 *             allowed to put its filters aside), RC_NOT_FOUND (it is gone), RC_IO */
enum rc halt_call(struct halt *h, pid_t pid, long number, const uint64_t args[6], long *out_result,
                  struct err *err);

/* Whether a thread of the process executes at an address of start..end, end excluded. */
bool halt_runs_in(const struct halt *h, pid_t pid, uint64_t start, uint64_t end);

/* Set the signals that a thread blocks: bit n - 1 for signal n.
 * errors  RC_NOT_FOUND (it is gone), RC_IO */
enum rc halt_block(const struct halt *h, pid_t tid, uint64_t mask, struct err *err);

/* Let them go on.  NULL is fine. */
void halt_endp(struct halt **p);

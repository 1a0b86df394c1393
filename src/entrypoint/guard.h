/* PID 1 of a restored tree: passes every signal on, reaps everything, ends as the tree's root ends.
 * Threads: the program's main thread only. */
#pragma once

#include <sys/types.h>

/* Block the signals that are to be passed on; call before the tree exists. */
void guard_begin(void);

/* Unblock them again: for a cold start after a failed restore. */
void guard_cancel(void);

/* Stay until `root`, a child of ours, has ended.  Returns its exit status, or 128 + signal. */
int guard(pid_t root);

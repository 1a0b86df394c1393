/* PID 1 of a restored tree: passes every signal on, reaps everything, ends as the tree's root ends.
 * Threads: the program's main thread only. */
#pragma once

#include <sys/types.h>

/* Block the signals that are to be passed on; call before the tree exists. */
void guard_begin(void);

/* Unblock them again: for a cold start. */
void guard_cancel(void);

/* Sleep for so long; between guard_begin() and guard_cancel().  PID 1 of a container gets no signal
 * by itself: one that asks us to end (SIGTERM, SIGINT, SIGQUIT) does, with 128 + its number. */
void guard_pause(unsigned seconds);

/* Stay until `root`, a child of ours, has ended.
 * master  of the terminal that the tree has had, or -1: what it writes there goes to our standard
 *         output, and our standard input goes there; nobody else would read it
 * Returns its exit status, or 128 + signal. */
int guard(pid_t root, int master);

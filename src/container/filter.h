/* What the kernel refuses to a program: system call filters (seccomp).
 *
 * They hold for all that the program starts, cannot be taken back, and are saved and restored with
 * it.  They ask for CAP_SYS_ADMIN rather than set no_new_privs, so sudo and its like go on to work.
 *
 * Threads: a filter is of the calling thread, and of those that it starts.  Safe between fork() and
 * execve().
 */
#pragma once

/* From now on there is no io_uring: its calls fail with ENOSYS, as in a kernel that was built
 * without.  Most programs then take the way that they took before there was one, and can be saved.
 * A ring that is open already can be used no more.
 *
 * returns  0, or -1 and errno: EACCES (no CAP_SYS_ADMIN), EINVAL (a kernel without filters) */
int filter_io_uring(void);

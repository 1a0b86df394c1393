/* What the box's init does to file systems, terminals and descriptors; private to container/.
 * Everything here runs in init, single-threaded, and reports failure as -1 with errno.
 */
#pragma once

#include "container/box.h"
#include "container/box_init.h"

/* Detach from the caller's mounts and mount the box's own /proc, /dev/pts, /dev/shm and application
 * directory; with a private network bring loopback up.  On failure *out_stage says what failed. */
int box_mount_files(const struct box_config *config, enum box_stage *out_stage);

/* A pty of the box's own /dev/pts.  Both ends are the caller's. */
int box_open_pty(const struct winsize *window, int *out_master, int *out_slave);

/* Make the next PID of this PID namespace larger than `first`.  Best effort: with a read-only
 * /proc/sys PIDs start low, which only makes a collision at restore more likely. */
void box_skip_pids(int first);

/* Sort out the descriptors that init has from its maker.  Closed: what is close-on-exec (the
 * maker's own).  Kept: the standard streams, `control`, `children`, the config's pipes.  What the
 * maker itself inherited is meant for the application: files are opened again by path, since CRIU
 * cannot dump a file that was opened through a mount outside the box; what has no path any more is
 * closed. */
int box_sort_descriptors(const struct box_config *config, int control, int children);

/* What is changed in CRIU's images.
 *
 * Before a checkpoint is published, its faults are mended.  Periodic timerfd (CRIU up to 4.2 at
 * least): a timer that has expired and was not read yet shows a remaining time of 0 in
 * /proc/PID/fdinfo.  CRIU records that and gives it to timerfd_settime() at restore, where 0 means
 * "disarm": the timer never fires again, and an event loop that lives on it stands still.  Such an
 * entry (period set, remaining time 0, expirations waiting) gets the period as its remaining time;
 * waiting expirations are restored by CRIU anyway.
 *
 * Before a restore, files that were only written at their end (a log) may have another size than
 * CRIU insists on.  The program goes on at their end, so nothing that was written since is lost.
 *
 * Image bytes are read defensively.  Threads: safe.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Mend the images in a directory, in place.
 * out_mended  number of entries that were changed
 * errors      RC_CORRUPT (no image of CRIU's), RC_IO */
enum rc cr_mend(int dirfd, size_t *out_mended, struct err *err);

/* Asked for the present size of a file, by its path in the tree; false: nothing is to be changed.
 */
typedef bool cr_size_now(void *arg, const char *path, uint64_t was, uint64_t *out_bytes);

/* Give the files that the tree had open for writing only, and that were written at their end, their
 * present size, in place.  Deleted files, which CRIU makes anew, are left alone.
 * errors  RC_CORRUPT (no image of CRIU's), RC_TOO_BIG, RC_IO */
enum rc cr_follow_logs(int dirfd, cr_size_now *now, void *arg, struct err *err);

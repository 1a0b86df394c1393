/* Faults of CRIU's images that can be mended before a checkpoint is published.
 *
 * Periodic timerfd (CRIU up to 4.2 at least): a timer that has expired and was not read yet shows a
 * remaining time of 0 in /proc/PID/fdinfo.  CRIU records that and gives it to timerfd_settime() at
 * restore, where 0 means "disarm": the timer never fires again, and an event loop that lives on it
 * stands still.  Such an entry (period set, remaining time 0, expirations waiting) gets the period
 * as its remaining time; waiting expirations are restored by CRIU anyway.
 *
 * Image bytes are read defensively.  Threads: safe.
 */
#pragma once

#include "base/err.h"

#include <stddef.h>

/* Mend the images in a directory, in place.
 * out_mended  number of entries that were changed
 * errors      RC_CORRUPT (no image of CRIU's), RC_IO */
enum rc cr_mend(int dirfd, size_t *out_mended, struct err *err);

/* The signal file: how a captured program learns that the attempt is over (contract, 4.2).
 * Threads: safe. */
#pragma once

#include "base/err.h"

#include <sys/types.h>

struct done;

/* Write it below the root directory of a process, so that whoever reads it sees all of it.
 * pidfd   of the process; borrowed: its number may be another's by now
 * path    in the container, absolute; its folders are made (0755).  Neither `..` nor a symbolic
 *         link in it leads out of the container
 * errors  RC_INVALID (path), RC_NOT_FOUND (the process is gone), RC_DENIED, RC_NO_SPACE, RC_IO */
enum rc signal_file_write(int pidfd, const char *path, const struct done *d, struct err *err);

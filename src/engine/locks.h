/* Are the file locks free that a tree needs?  CRIU takes them one after the other and waits for
 * each as long as somebody else holds it, for ever if need be.  Threads: safe. */
#pragma once

#include "base/err.h"

/* Look at each lock of the checkpoint whose images are in `images`; paths are below `root`, the
 * tree's root directory.  A file that is not there is for CRIU to complain about.
 * errors  RC_CONFLICT (which file, who holds it), RC_CORRUPT, RC_IO */
enum rc locks_check(int images, int root, struct err *err);

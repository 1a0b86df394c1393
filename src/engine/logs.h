/* Files that a program writes at their end and that others have written, cut or begun anew since
 * its checkpoint: logs.  Threads: safe. */
#pragma once

#include "base/err.h"

struct engine;

/* Let the program go on at the end of its logs, and say so.
 * images  a directory that may be changed
 * root    the tree's root directory
 * errors  RC_CORRUPT, RC_TOO_BIG, RC_IO */
enum rc logs_follow(const struct engine *e, int images, int root, struct err *err);

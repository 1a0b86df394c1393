/* The names in a directory, all of them or an error: a directory that could be read only in part is
 * never taken for one with less in it.  Threads: a listing belongs to one thread. */
#pragma once

#include "base/err.h"

#include <stddef.h>

#define LISTING_MAX 4194304 /* names; more are RC_TOO_BIG */

struct listing {
    char **name; /* in the order of their bytes, without "." and ".." */
    size_t n;
};

/* Read them.
 * path    of the directory, relative to dirfd; "." is dirfd itself; no link to one
 * out     the caller's, listing_done()
 * errors  RC_NOT_FOUND, RC_DENIED, RC_TOO_BIG, RC_IO (also: no directory) */
enum rc listing_read(int dirfd, const char *path, struct listing *out, struct err *err);
void listing_done(struct listing *l); /* for CLEANUP() */

/* How an archive of an overlay's upper directory says what is not there any more: a character
 * device 0:0, or an empty file `.wh.NAME`, in the place of what was deleted; and of a directory
 * that hides all of what is below it the attribute trusted.overlay.opaque, or a file `.wh..wh..opq`
 * in it.
 *
 * Threads: safe.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>

#define WHITEOUT_OPAQUE ".wh..wh..opq"

struct archive_entry;

/* The path that an entry says was deleted; NULL: it says no such thing.
 * path  of the entry, relative
 * Returns the caller's (free). */
char *whiteout_of(const char *path, struct archive_entry *e);
/* Whether the entry is a directory that says by attribute that it is opaque. */
bool whiteout_is_opaque(struct archive_entry *e);
/* Whether the path is that of the file that says so of the directory it is in. */
bool whiteout_is_opaque_mark(const char *path);
/* Make an entry say that `deleted`, a relative path, was deleted; or, a directory, that it is
 * opaque. */
void whiteout_make(struct archive_entry *e, const char *deleted);
void whiteout_make_opaque(struct archive_entry *e);
/* Drop the overlay's own attributes: they mean nothing elsewhere. */
void whiteout_drop_attributes(struct archive_entry *e);

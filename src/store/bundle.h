/* The files of a checkpoint as one object: a tar archive (pax), `<id>.tar`.
 *
 * Members are plain names.  manifest, manifest.sig, metadata.json and checkpoint.done come first,
 * then the memory map, then the others by name, so that a look at a checkpoint takes one short
 * read.  Packs are objects of their own, beside it.  Format: docs/formats/object-store.md.
 *
 * An archive comes from outside: members that are no plain files, have no plain names, appear twice
 * or claim more than the object has are refused, and what is in them is for the manifest to judge.
 *
 * Threads: safe; a directory belongs to one call.
 */
#pragma once

#include "backend/backend.h"

#include <stdbool.h>

#define BUNDLE_FIRST ((size_t)256 << 10) /* bytes that a look at a checkpoint reads */

/* Write the regular files of a directory.
 * replace  instead of a bundle that is there already
 * errors   RC_EXISTS, or what reading the files or the backend met; then nothing has changed */
enum rc bundle_write(int dir, struct backend *b, const char *key, bool replace, struct err *err);

enum bundle_part { BUNDLE_ALL, BUNDLE_DOCUMENTS };

/* Extract into a directory.  Documents that are there already stay as they are.
 * part      BUNDLE_DOCUMENTS: stop behind them unless the whole bundle is BUNDLE_FIRST or less
 * out_all   whether every file is there now
 * errors    RC_CORRUPT (no such archive, or a hostile one), RC_NO_SPACE, or what the backend met;
 *           files may have appeared */
enum rc bundle_read(struct backend_object *o, enum bundle_part part, int dir, bool *out_all,
                    struct err *err);

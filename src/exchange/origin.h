/* Where an imported checkpoint comes from: its members by their own paths, with the names of the
 * files that hold them here, so that an export gives back what was imported.  Kept as a file of the
 * checkpoint, ORIGIN_NAME, as JSON.
 *
 * Threads: an origin belongs to one thread. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define ORIGIN_NAME "origin.json"
#define ORIGIN_MAX ((size_t)32 << 20)

struct origin_member {
    char *path; /* in the archive; clean, as members_check_path() has it */
    char *name; /* of the file; of a page image also where its pages are packed */
    unsigned mode;
    int64_t mtime;
};

struct origin {
    char *engine;                  /* "podman", "cri-o", "containerd", "criu", "chrek-reference" */
    struct origin_member *members; /* in the archive's order */
    size_t n;
};

void origin_add(struct origin *o, const char *path, const char *name, unsigned mode, int64_t mtime);
void origin_format(const struct origin *o, struct buf *out);
/* out: the caller's, origin_done().  errors RC_CORRUPT */
enum rc origin_parse(const char *text, size_t len, struct origin *out, struct err *err);
void origin_done(struct origin *o);

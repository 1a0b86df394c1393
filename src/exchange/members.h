/* What a checkpoint of another program consists of: the files of an archive (tar, also compressed
 * by gzip or zstd) or of a directory.
 *
 * It comes from outside.  A member is a plain file with a clean path; everything else (links,
 * devices, absolute paths, `..`, a path twice in one file system sense, more than it can honestly
 * hold) is refused by name, and nothing of it is ever opened by its path: what a member is called
 * is for the caller to map.  Directories count only by what is in them.
 *
 * Threads: safe.
 */
#pragma once

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define MEMBERS_MAX 100000U               /* files */
#define MEMBERS_PATH_MAX 1024U            /* bytes of a path */
#define MEMBERS_DEPTH 8U                  /* folders around a file */
#define MEMBERS_RATIO ((uint64_t)1000)    /* all members together, to the bytes of the archive */
#define MEMBERS_FREE ((uint64_t)64 << 20) /* so much may come out of any archive */

struct member {
    const char *path; /* relative, without `.`, `..` or a slash too many; borrowed */
    uint64_t size;
    unsigned mode; /* permissions */
    int64_t mtime; /* seconds since 1970 */
};

struct member_data;

/* Read the next bytes: `cap` of them, fewer only at the member's end.
 * errors  RC_CORRUPT (the archive ends, or its checksum is wrong), RC_IO */
enum rc member_read(struct member_data *d, void *data, size_t cap, size_t *out_len,
                    struct err *err);

/* Whether a path may be a member's, and is written as `struct member` has it.  errors RC_CORRUPT */
enum rc members_check_path(const char *path, struct err *err);

/* Called for each member, in the archive's order, of a directory by path.  What it does not read is
 * skipped.  An error ends the visit and is what it returns. */
typedef enum rc member_visit(void *arg, const struct member *m, struct member_data *d,
                             struct err *err);

/* path    of an archive or a directory, the user's own: links in it are followed
 * errors  RC_NOT_FOUND, RC_DENIED, RC_CORRUPT (no such archive, or a hostile one), RC_TOO_BIG (more
 *         than the limits above), RC_IO */
enum rc members_each(const char *path, member_visit *visit, void *arg, struct err *err);

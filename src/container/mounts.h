/* The mounts of a process: /proc/<pid>/mountinfo.
 *
 * Paths are as that process sees them, with escapes undone.  The text is outside bytes: a user can
 * mount anything under any name.
 * Threads: a list belongs to one thread.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

#define MOUNTS_MAX 100000 /* more lines than this are RC_TOO_BIG */

struct mount {
    int id, parent;
    unsigned major, minor; /* of the file system, as stat() tells it */
    char *root; /* directory of the file system that is mounted: "/" or a bind's source */
    char *target;
    char *options;           /* of this mount: "rw,nosuid,relatime" */
    unsigned shared, master; /* peer groups, 0 = none */
    char *type;              /* "overlay", "fuse.sshfs" */
    char *source;
    char *super; /* options of the file system: "rw,lowerdir=..." */
};

struct mounts {
    struct mount *list; /* in the order of the file: a later one covers an earlier one */
    size_t n;
};

/* errors  RC_CORRUPT (which line), RC_TOO_BIG */
enum rc mounts_parse(const char *text, size_t len, struct mounts *out, struct err *err);
/* Of an open task.  errors  RC_NOT_FOUND, RC_DENIED, RC_CORRUPT, RC_TOO_BIG */
enum rc mounts_read(int task, struct mounts *out, struct err *err);
void mounts_done(struct mounts *m); /* for CLEANUP() */

/* NULL when there is none; borrowed. */
const struct mount *mounts_by_id(const struct mounts *m, int id);
/* The mount that a path lies on, by longest target; the last one where several cover each other. */
const struct mount *mounts_of_path(const struct mounts *m, const char *path);
/* The root file system. */
const struct mount *mounts_root(const struct mounts *m);

/* Whether the comma-separated list has the plain option `name` ("ro"). */
bool mounts_has_option(const char *options, const char *name);
/* The value of "name=value", with the escapes of overlayfs (a backslash before a comma) undone.
 * The caller's (free); NULL when it is not there. */
char *mounts_option(const char *options, const char *name);

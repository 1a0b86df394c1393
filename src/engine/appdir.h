/* The application directory: what a restored program needs to know about its new life.
 *
 * A restored process keeps the environment, host name and random state of the moment it was frozen.
 * The truth about where it runs now is offered in plain files, each replaced atomically, all of
 * them in place before the tree resumes; `generation` is written last, so a program that sees a new
 * generation sees everything that belongs to it.
 *
 *   generation     decimal: 0 after a cold start, n after the n-th restore of this line
 *   checkpoint_id  what it was restored from (absent after a cold start)
 *   restored_at    UTC, RFC 3339 (absent after a cold start)
 *   hostname       of the machine or pod that it runs on now
 *   env            the environment of whoever restored it: NAME=value lines, with newline and
 *                  backslash written as \n and \\; mode 0600, since it often holds credentials
 *   random         64 fresh bytes to seed generators that were duplicated by the restore
 *   identity.json  generation, checkpoint_id, restored_at and hostname as one JSON object
 *   ready          written by the program: it may be checkpointed now
 *   outcome        written when a checkpoint of this life is over and the program goes on:
 *                  "saved ID" or "failed REASON"
 *
 * The directory itself belongs to a box or a container; here it is a descriptor.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define APPDIR_ENV "CHREK_DIR" /* the variable that names the directory to the application */
#define APPDIR_READY "ready"
#define APPDIR_OUTCOME "outcome"

struct appdir_identity {
    uint64_t generation;
    const char *checkpoint_id; /* NULL after a cold start */
    const char *restored_at;   /* likewise */
    const char *hostname;
    char *const *env; /* NULL-terminated */
};

/* Write all files for a new life; `ready` and `outcome` of the former life are removed first.
 * dirfd   of the directory, borrowed
 * errors  RC_IO, RC_NO_SPACE, RC_DENIED */
enum rc appdir_write(int dirfd, const struct appdir_identity *id, struct err *err);

/* Tell the application how its checkpoint ended.
 * id, failure  one of them is NULL
 * errors       RC_IO, RC_NO_SPACE, RC_DENIED */
enum rc appdir_write_outcome(int dirfd, const char *id, const char *failure, struct err *err);

/* Whether the application has said that it is ready. */
bool appdir_is_ready(int dirfd);

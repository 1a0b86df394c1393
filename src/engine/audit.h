/* May a restored tree run in the container of somebody else?
 *
 * CRIU restores with rights that the container does not have, from images that somebody may have
 * made up, at paths that the container's owner may have turned into links.  So the tree is looked
 * at once it is whole and stands still: what counts is what the kernel says of it, not what the
 * images say.  It may have nothing that the container's first process could not have: user and
 * group ids, capabilities, filters of system calls, namespaces, control groups, mounts, limits and
 * priorities (engine/bounds.h), open files (engine/audit_files.h, engine/reach.h), sockets
 * (engine/wires.h).  What is not known to be harmless is refused.  Of filters only the number is
 * known: runtimes make another program of the same profile each time, so that what they are cannot
 * be compared.  Threads: safe.
 */
#pragma once

#include "base/err.h"
#include "container/mounts.h"
#include "container/place.h"
#include "container/task.h"

#include <stdbool.h>
#include <sys/types.h>

/* root    of the tree, as we see it, stopped
 * errors  RC_DENIED (what it has that the container may not have), RC_NOT_FOUND (it has ended),
 *         RC_CORRUPT, RC_TOO_BIG, RC_IO */
enum rc audit_tree(const struct place *p, pid_t root, struct err *err);

/* What the rules are about, each by itself. */

/* Whether a process with `has` may be where the container's first process has `limit`. */
enum rc audit_rights(const struct task_status *limit, const struct task_status *has,
                     struct err *err);
/* The same of mounts: each of `has` must be one of `limit`, or a part of one, as strict as that
 * one; and what `limit` has mounted on anything but its root file system must be there, because it
 * may be there to hide what it lies on.  No two lie on each other, so that each is to be seen. */
enum rc audit_mounts(const struct mounts *limit, const struct mounts *has, struct err *err);

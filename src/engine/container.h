/* A container of a runtime, saved with its namespaces: what of it is CRIU's and what is not.
 *
 * The images are as the contract wants them (section 7): every mount is external under its own
 * path, the network namespace under the key `extNetNs`, so that they can be exchanged with ChReK's.
 * Threads: safe.
 */
#pragma once

#include "base/err.h"
#include "container/mounts.h"
#include "engine/engine.h"
#include "store/metadata.h"

#include <sys/types.h>

#define CONTAINER_NET_KEY "extNetNs"

/* CRIU's external resources for a dump of the container whose first process is `pid`.
 * out     NULL-terminated; the caller's, container_external_freep()
 * errors  RC_NOT_FOUND (no such process), RC_DENIED, RC_CORRUPT, RC_TOO_BIG */
enum rc container_external(pid_t pid, const struct engine_container *c, char ***out,
                           struct err *err);
void container_external_freep(char ***list);

/* The same for a restore in somebody else's container (container/place.h): each mount that it has,
 * and each path that the checkpoint's container had one at, from where CRIU finds it.
 * task    of the container's first process, open
 * out     as above
 * errors  as above */
enum rc container_external_here(int task, const struct metadata *m, char ***out, struct err *err);

/* What the metadata says of it: where it comes from, its volumes, its namespaces.
 * errors  as for container_external() */
enum rc container_describe(pid_t pid, const struct engine_container *c, struct metadata *m,
                           struct err *err);

/* The part of that which is in its table of mounts: volumes, by the contract's rule (5.3). */
void container_describe_mounts(const struct mounts *all, const struct engine_container *c,
                               struct metadata_place *out);

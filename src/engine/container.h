/* A container of a runtime, saved with its namespaces: what of it is CRIU's and what is not.
 *
 * The images are as the contract wants them (section 7): every mount is external under its own
 * path, the network namespace under the key `extNetNs`, so that they can be exchanged with ChReK's.
 * Threads: safe.
 */
#pragma once

#include "base/err.h"

#include <sys/types.h>

#define CONTAINER_NET_KEY "extNetNs"

/* CRIU's external resources for a dump of the container whose first process is `pid`.
 * masked  further paths, NULL-terminated, or NULL
 * out     NULL-terminated; the caller's, container_external_freep()
 * errors  RC_NOT_FOUND (no such process), RC_DENIED, RC_CORRUPT, RC_TOO_BIG */
enum rc container_external(pid_t pid, const char *const *masked, char ***out, struct err *err);
void container_external_freep(char ***list);

/* The agent's socket for containers of its node: one asks, by its restore-entrypoint, to be
 * restored from a checkpoint.
 *
 * Everybody on the node whom the socket's folder is mounted for may connect; what one gets depends
 * on who it is (agent/caller.h), never on what it says.  Each connection has a thread of its own,
 * up to a bound.
 * Threads: it has threads of its own; start and stop belong to one thread.
 */
#pragma once

#include "agent/metrics.h"
#include "agent/settings.h"
#include "base/err.h"
#include "cri/cri.h"
#include "kube/client.h"
#include "store/store.h"

#include <stdatomic.h>

struct door;

/* What it works with; borrowed until door_stopp(). */
struct door_tools {
    const struct settings *settings;
    struct kube *kube;
    struct cri *cri;
    struct store *store;
    struct metrics *metrics;
    const atomic_bool *stop; /* restores are broken off when this becomes true */
};

/* path    of the socket; its folder is made (0755), and what another agent has left is replaced
 * out     the caller's, door_stopp()
 * errors  RC_INVALID (path), RC_DENIED, RC_IO */
enum rc door_start(const char *path, const struct door_tools *tools, struct door **out,
                   struct err *err);
/* Waits for all restores that go on. */
void door_stopp(struct door **d);

/* Are the ports free that a tree listens on?  CRIU binds with SO_REUSEPORT, and takes it away only
 * later: two restored trees can so come to listen on one port, and one never hears of a client.
 * Threads: a claim belongs to one thread. */
#pragma once

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* Ports that a restore is about to listen on: others that would listen there, too, wait. */
struct ports {
    int *locks;
    size_t n;
};

#define PORTS_INIT                                                                                 \
    {                                                                                              \
        .locks = NULL                                                                              \
    }

/* Claim the ports of a checkpoint.
 * images    its images
 * task      a process of the network namespace (container/task.h)
 * deadline  monotonic ns, for the wait
 * out       the caller's, ports_done() once the tree listens
 * errors    RC_CONFLICT (which address is taken), RC_CORRUPT, RC_TOO_BIG, RC_TIMEOUT, RC_IO */
enum rc ports_claim(int images, int task, uint64_t deadline, struct ports *out, struct err *err);
void ports_done(struct ports *p);

/* What is done for one pod: captured exactly once for each of its containers' lives.
 *
 * Whether it has been is read from the world: a checkpoint of its id that is there is one, if it is
 * not of another namespace's pod, to whom the id then belongs; the pod's annotations
 * (agent/report.h) say how often it was tried. Threads: an attend belongs to one thread.
 */
#pragma once

#include "agent/metrics.h"
#include "agent/settings.h"
#include "base/err.h"
#include "cri/cri.h"
#include "kube/client.h"
#include "kube/pod.h"
#include "store/store.h"

#include <stdatomic.h>
#include <stdint.h>

struct attend {
    const struct settings *settings;
    struct kube *kube;
    struct cri *cri;
    struct store *store;
    struct metrics *metrics;
    const atomic_bool *stop;
};

/* out_done  the bare ID of the container that nothing is to be done for any more ("" when the pod
 *           has none that could be captured); the caller's (free).  NULL: look at it again
 * out_due   when, as clock_now() */
void attend_pod(const struct attend *a, const struct kube_pod *p, char **out_done,
                uint64_t *out_due);

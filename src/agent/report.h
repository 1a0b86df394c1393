/* What the agent says of a pod's checkpoint, on the pod: annotations, which are also what it goes
 * by after a restart, and Events.
 *
 *   chrek.io/checkpoint-status     in_progress, completed or failed
 *   chrek.io/checkpoint-container  the ID of the container that this is about
 *   chrek.io/checkpoint-attempts   how many have begun
 *   chrek.io/checkpoint-id         completed: the checkpoint
 *   chrek.io/checkpoint-message    failed: why
 * Threads: safe. */
#pragma once

#include "base/err.h"
#include "kube/client.h"
#include "kube/pod.h"

#include <stdbool.h>

enum report_state { REPORT_NONE, REPORT_IN_PROGRESS, REPORT_COMPLETED, REPORT_FAILED };

struct report {
    enum report_state state;
    unsigned attempts;
};

/* What its annotations say of this container; nothing if they are about another one. */
struct report report_read(const struct kube_pod *p, const char *container_id);

struct report_news {
    enum report_state state;
    const char *container_id; /* without a scheme */
    unsigned attempts;
    const char *id;      /* NULL: not known */
    const char *message; /* NULL: none */
};

/* Write the annotations.  Nothing is written if the pod has been replaced by another of its name.
 * errors  as for kube_do() */
enum rc report_write(struct kube *k, const struct kube_pod *p, const struct report_news *news,
                     struct err *err);

/* Say on the pod how a restore for one of its containers has ended:
 *
 *   chrek.io/restore-status     completed or failed
 *   chrek.io/restore-container  the ID of the container
 *   chrek.io/restore-id         the checkpoint
 *   chrek.io/restore-message    failed: why
 * errors  as for report_write(); message: NULL = completed */
enum rc report_restore(struct kube *k, const struct kube_pod *p, const char *container_id,
                       const char *id, const char *message, struct err *err);

/* Post an Event; that it cannot be posted is logged, and no failure. */
void report_event(struct kube *k, const struct kube_pod *p, const char *node, bool warning,
                  const char *reason, const char *message);

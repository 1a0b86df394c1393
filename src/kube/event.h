/* Events: what kubectl describe shows of an object.  Threads: safe. */
#pragma once

#include "base/err.h"
#include "kube/client.h"

#include <stdbool.h>

struct kube_event {
    bool warning;
    const char *reason;    /* "CheckpointFailed" */
    const char *message;   /* cut at 1024 bytes, as the server does not take more */
    const char *component; /* who says so: "chrek-agent" */
    const char *node;
    /* Of which pod. */
    const char *name, *name_space, *uid;
};

/* errors  as for kube_do() */
enum rc kube_event_post(struct kube *k, const struct kube_event *e, struct err *err);

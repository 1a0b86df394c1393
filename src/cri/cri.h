/* The container runtime of a node, asked over its socket (CRI, runtime.v1): containerd or CRI-O.
 *
 * Only questions; nothing here changes a container.  What the runtime says is checked like anything
 * else from outside.  Threads: a client may be shared; a status belongs to one thread.
 */
#pragma once

#include "base/err.h"

#include <stdint.h>
#include <sys/types.h>
#include <yyjson.h>

struct cri;

/* socket      path, or unix://PATH
 * timeout_ns  of each call; 0 = 10 s
 * out         the caller's, cri_closep(); nothing is connected before the first call
 * errors      RC_INVALID (socket) */
enum rc cri_open(const char *socket, uint64_t timeout_ns, struct cri **out, struct err *err);
void cri_closep(struct cri **c);

struct cri_version {
    char *name;    /* "containerd", "cri-o" */
    char *version; /* "1.7.24" */
};

/* out     the caller's, cri_version_done()
 * errors  RC_UNAVAILABLE (nobody answers), RC_TIMEOUT, RC_UNSUPPORTED (no runtime.v1 there),
 *         RC_CORRUPT */
enum rc cri_version(struct cri *c, struct cri_version *out, struct err *err);
void cri_version_done(struct cri_version *v);

enum cri_state { CRI_CREATED, CRI_RUNNING, CRI_EXITED, CRI_UNKNOWN };

/* A container as its runtime knows it.  Texts are borrowed from the struct. */
struct cri_container {
    char *id;
    char *name;  /* in its pod */
    char *image; /* its name; if the runtime does not say it, its digest */
    char *pod_uid;
    char *pod_name, *pod_namespace; /* as an orchestrator has labelled it; NULL: none has */
    enum cri_state state;
    pid_t pid;        /* of its first process as the runtime's PID namespace has it; 0 = unknown */
    yyjson_doc *info; /* what the runtime says beyond CRI, or NULL */
    yyjson_val *spec; /* the OCI runtime spec in it, or NULL */
};

/* id      without a scheme
 * out     the caller's, cri_container_done()
 * errors  RC_NOT_FOUND (no such container), and those of cri_version() */
enum rc cri_container(struct cri *c, const char *id, struct cri_container *out, struct err *err);
void cri_container_done(struct cri_container *k);

/* The ids of all containers that run.
 * out     NULL-terminated; the caller's, cri_ids_free()
 * errors  those of cri_version() */
enum rc cri_running(struct cri *c, char ***out, struct err *err);
void cri_ids_free(char **ids);

/* The value of a variable in the environment that the container was started with; NULL when it is
 * not there.  Borrowed. */
const char *cri_container_env(const struct cri_container *k, const char *name);

/* "containerd://4711" without the scheme. */
const char *cri_bare_id(const char *id);

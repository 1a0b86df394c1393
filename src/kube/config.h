/* How to reach an API server, and as whom: a kubeconfig's context, or what a pod is given.
 * Threads: a config belongs to one thread. */
#pragma once

#include "base/err.h"

/* Texts are the struct's; NULL means absent. */
struct kube_config {
    char *server; /* "https://10.0.0.1:6443", without a slash at its end */
    char *ca_pem; /* NULL: the system's certificates */
    char *cert_pem, *key_pem;
    char *token;
    char *token_file; /* read anew for every request: it is replaced before it expires */
    /* A program that logs in (kube/login.h), with what is added to its environment. */
    char **exec_argv, **exec_env;
    char *exec_version;
    char *name_space; /* the default one, "default" if nothing is said */
};

/* A kubeconfig file (YAML or JSON).
 * context  NULL: its current one
 * out      the caller's, kube_config_done()
 * errors   RC_NOT_FOUND (no file; no such context, cluster or user), RC_CORRUPT, RC_DENIED,
 *          RC_UNSUPPORTED (a way of logging in that we do not have; unverified TLS) */
enum rc kube_config_read(const char *path, const char *context, struct kube_config *out,
                         struct err *err);

#define KUBE_POD_DIR "/var/run/secrets/kubernetes.io/serviceaccount"

/* What every pod has: the service account's directory, and the server's address in the environment.
 * dir         KUBE_POD_DIR
 * host, port  of KUBERNETES_SERVICE_HOST and _PORT; NULL = not set
 * errors      RC_NOT_FOUND (this is no pod, or it has no service account), RC_INVALID */
enum rc kube_config_in_cluster(const char *dir, const char *host, const char *port,
                               struct kube_config *out, struct err *err);

/* Wipes keys and tokens. */
void kube_config_done(struct kube_config *c);

/* Logging in by a program of the user's, as a kubeconfig's `exec` names it: it writes an
 * ExecCredential with a token to its standard output.  A token is kept until it expires.
 *
 * The program is run without a shell, without a terminal, for at most a minute.
 * Threads: safe; the program runs once at a time.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

struct kube_login;

/* argv     the program, looked for in PATH, and its arguments; NULL-terminated
 * env      "NAME=value" to add to its environment; NULL-terminated, or NULL
 * version  of the ExecCredential: "client.authentication.k8s.io/v1" */
struct kube_login *kube_login_new(char *const *argv, char *const *env, const char *version);
void kube_login_freep(struct kube_login **login);

/* Append a token.
 * errors  RC_DENIED (the program failed), RC_CORRUPT (what it says is no ExecCredential with a
 *         token), RC_TIMEOUT, RC_IO */
enum rc kube_login_token(struct kube_login *l, struct buf *out, struct err *err);
/* The token that it gave is not taken: the next one is a new one. */
void kube_login_forget(struct kube_login *l);

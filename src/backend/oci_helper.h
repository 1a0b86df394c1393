/* Credentials that a program keeps: `docker-credential-NAME get`, as Docker's configuration names
 * it. It is given the registry's name and answers with JSON. Threads: safe. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>

struct oci_login {
    char *user, *secret;
    bool is_identity; /* the secret is a token to get others with, not a password */
};

/* Wipes. */
void oci_login_done(struct oci_login *l);

/* Ask it, for at most half a minute.
 * name    letters, digits, - . _
 * out     the caller's, oci_login_done()
 * errors  RC_NOT_FOUND (it has none for this registry), RC_INVALID (no name of a program),
 *         RC_DENIED (it fails; what it says is told), RC_UNAVAILABLE (it is not to be found, with
 *         the remedy), RC_CORRUPT (what it answers), RC_TIMEOUT */
enum rc oci_helper_ask(const char *name, const char *registry, struct oci_login *out,
                       struct err *err);

/* How a registry wants to be asked: without credentials, with a name and a password, or with a
 * token that it gives for these.
 *
 * Credentials: CHREK_OCI_USERNAME and CHREK_OCI_PASSWORD, else those of the registry in
 * $REGISTRY_AUTH_FILE, $DOCKER_CONFIG/config.json or ~/.docker/config.json: a name and a password,
 * an identity token, or a program that keeps them (oci_helper.h), which is asked when the registry
 * wants some, and again when they are refused.  There may be none.
 *
 * Threads: shared; one fetches a token, the others wait for it. */
#pragma once

#include "backend/url.h"
#include "base/buf.h"
#include "net/http.h"

struct oci_auth;

/* registry  "host[:port]"; borrowed
 * base      its URL, "https://host:port"; borrowed
 * scope     of tokens: "repository:NAME:pull,push,delete"; borrowed
 * http      borrowed for the life of it
 * out       the caller's, oci_auth_freep()
 * errors    RC_INVALID (a file of credentials) */
enum rc oci_auth_open(const struct backend_options *o, const char *registry, const char *base,
                      const char *scope, struct http_client *http, struct oci_auth **out,
                      struct err *err);
void oci_auth_freep(struct oci_auth **a);
/* See backend_after_fork(). */
void oci_auth_after_fork(struct oci_auth *a);

/* The value of the header Authorization, "" for none.  Asks the registry at the first time.
 * fresh   the last one was refused
 * errors  RC_DENIED, RC_CORRUPT (an answer that no registry gives), those of http_do() and
 *         oci_helper_ask() */
enum rc oci_auth_header(struct oci_auth *a, bool fresh, struct buf *out, struct err *err);
/* Where the credentials are from, for messages: "the environment", "/root/.docker/config.json",
 * "nowhere".  Borrowed. */
const char *oci_auth_source(const struct oci_auth *a);

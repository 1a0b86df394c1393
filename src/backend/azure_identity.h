/* Access tokens for Azure: of a workload identity (a token of the cluster, exchanged), else of the
 * machine's managed identity.  Fetched anew five minutes before they end.
 * Threads: an identity is shared; one fetches, the others wait for it. */
#pragma once

#include "base/err.h"

#include <stdbool.h>

struct azure_identity;

/* env        getenv()
 * client_id  which managed identity, NULL: AZURE_CLIENT_ID, else the only one; copied
 * ca_file    NULL: the system's
 * out        the caller's, azure_identity_freep().  errors as http_open() */
enum rc azure_identity_open(char *(*env)(const char *name), const char *client_id,
                            const char *ca_file, struct azure_identity **out, struct err *err);
void azure_identity_freep(struct azure_identity **i);
/* See backend_after_fork(). */
void azure_identity_after_fork(struct azure_identity *i);

/* fresh   the last one was refused
 * out     the caller's (free)
 * errors  RC_DENIED (there is no identity, or it is refused), RC_INVALID, those of http_do() */
enum rc azure_identity_token(struct azure_identity *i, bool fresh, char **out, struct err *err);

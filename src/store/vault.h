/* What somebody brings along to a store: keys, a signature of his own, and whom he trusts.
 * Threads: constant after it was made. */
#pragma once

#include "base/err.h"
#include "codec/signature.h"
#include "store/keyring.h"

#include <stdbool.h>

/* Where it comes from; every member may be NULL or zero. */
struct vault_options {
    struct key_source key;
    const char *sign_key;  /* PEM file of an Ed25519 private key, private to its owner */
    const char *trust_key; /* PEM file of public keys, or a directory of such */
    bool require;          /* refuse unsigned checkpoints; a trust key implies it */
};

struct vault {
    struct keyring *keys; /* NULL: encrypted checkpoints stay shut, new ones are in the clear */
    struct signature_key *signer; /* NULL: new checkpoints are not signed */
    struct signature_trust trust; /* any: unsigned checkpoints and those of others are refused */
};

/* out     the caller's, vault_done()
 * errors  RC_INVALID (require without a trust key; a file without a key), RC_NOT_FOUND, RC_DENIED
 * (a private file that others may read) */
enum rc vault_open(const struct vault_options *o, struct vault *out, struct err *err);
void vault_done(struct vault *v);

/* Whether there is anything in it. */
bool vault_is_empty(const struct vault *v);

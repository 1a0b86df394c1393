/* The configuration: /etc/chrek/config.json, or ~/.config/chrek/config.json for who is not root.
 *   {"storage": "/mnt/nfs/checkpoints", "key_file": "/etc/chrek/key", "key_command": "…",
 *    "sign_key": "/etc/chrek/signer", "trust_key": "/etc/chrek/signer.pub", "require_signature":
 * true} Threads: safe. */
#pragma once

#include "base/err.h"

#include <stdbool.h>

#define CONFIG_DEFAULT_STORE "/var/lib/chrek/checkpoints"

/* Path of the configuration file; out: the caller's (free). */
char *config_path(void);
/* The configured storage or the default; out: the caller's (free).  errors RC_CORRUPT, RC_DENIED */
enum rc config_storage(char **out, struct err *err);
/* Set the storage.  errors RC_DENIED, RC_IO */
enum rc config_set_storage(const char *storage, struct err *err);

/* What is configured about keys; absent: NULL, false. */
struct config_keys {
    char *key_file, *key_command, *sign_key, *trust_key;
    bool require_signature;
};

/* out: the caller's, config_keys_done().  errors RC_CORRUPT, RC_DENIED */
enum rc config_read_keys(struct config_keys *out, struct err *err);
void config_keys_done(struct config_keys *k);

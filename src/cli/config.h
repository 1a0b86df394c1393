/* The configuration: /etc/chrek/config.json, or ~/.config/chrek/config.json for who is not root.
 *   {"storage": "/mnt/nfs/checkpoints", "key_file": "/etc/chrek/key", "key_command": "…",
 *    "sign_key": "/etc/chrek/signer", "trust_key": "/etc/chrek/signer.pub",
 *    "require_signature": true, "cache": "/var/cache/chrek", "cache_size": 10737418240}
 * Threads: safe. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define CONFIG_DEFAULT_STORE "/var/lib/chrek/checkpoints"

/* Path of the configuration file; out: the caller's (free). */
char *config_path(void);
/* The configured storage or the default; out: the caller's (free).  errors RC_CORRUPT, RC_DENIED */
enum rc config_storage(char **out, struct err *err);
/* Set the storage.  errors RC_DENIED, RC_IO */
enum rc config_set_storage(const char *storage, struct err *err);

#define CONFIG_CACHE_SIZE ((uint64_t)10 << 30)

/* The cache that is configured: its directory, NULL = none; the caller's (free).  out_bytes: its
 * size, CONFIG_CACHE_SIZE where none is configured.  errors RC_CORRUPT, RC_DENIED */
enum rc config_cache(char **out_dir, uint64_t *out_bytes, struct err *err);
/* dir: "" = none any more, NULL = as it is.  bytes: 0 = as it is.  errors RC_DENIED, RC_IO */
enum rc config_set_cache(const char *dir, uint64_t bytes, struct err *err);

/* What is configured about keys; absent: NULL, false. */
struct config_keys {
    char *key_file, *key_command, *sign_key, *trust_key;
    bool require_signature;
};

/* out: the caller's, config_keys_done().  errors RC_CORRUPT, RC_DENIED */
enum rc config_read_keys(struct config_keys *out, struct err *err);
void config_keys_done(struct config_keys *k);

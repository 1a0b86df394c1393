/* The options that bring keys along: --key-file and its like, also from the environment and the
 * configuration.  Threads: the program's main thread only. */
#pragma once

#include "base/opt.h"
#include "store/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cli_keys {
    const char *file, *command, *sign, *trust;
    uint64_t timeout; /* of the command */
    bool require, unencrypted;
};

#define CLI_KEY_OPTIONS(type, field)                                                               \
    {.name = "key-file",                                                                           \
     .kind = OPT_STRING,                                                                           \
     .arg = "FILE",                                                                                \
     .offset = offsetof(type, field) + offsetof(struct cli_keys, file),                            \
     .env = "CHREK_KEY_FILE",                                                                      \
     .help = "The key to encrypt and decrypt with: a file of `chrek key generate`, or a mounted "  \
             "Secret."},                                                                           \
        {.name = "key-command",                                                                    \
         .kind = OPT_STRING,                                                                       \
         .arg = "COMMAND",                                                                         \
         .offset = offsetof(type, field) + offsetof(struct cli_keys, command),                     \
         .env = "CHREK_KEY_COMMAND",                                                               \
         .help = "Instead of a key file: a key service's client, run without a shell. It gets a "  \
                 "key on standard input, wraps or unwraps it ($CHREK_KEY_OPERATION says which) "   \
                 "and writes it to standard output."},                                             \
        {.name = "key-timeout",                                                                    \
         .kind = OPT_DURATION,                                                                     \
         .arg = "TIME",                                                                            \
         .offset = offsetof(type, field) + offsetof(struct cli_keys, timeout),                     \
         .env = "CHREK_KEY_TIMEOUT",                                                               \
         .help = "How long the key command may take. Default: 30s."},                              \
        {.name = "trust-key",                                                                      \
         .kind = OPT_STRING,                                                                       \
         .arg = "FILE",                                                                            \
         .offset = offsetof(type, field) + offsetof(struct cli_keys, trust),                       \
         .env = "CHREK_TRUST_KEY",                                                                 \
         .help = "Accept only checkpoints that are signed with one of the keys in FILE (PEM; or "  \
                 "a directory of such files)."},                                                   \
    {                                                                                              \
        .name = "require-signature", .kind = OPT_FLAG,                                             \
        .offset = offsetof(type, field) + offsetof(struct cli_keys, require),                      \
        .env = "CHREK_REQUIRE_SIGNATURE",                                                          \
        .help = "Accept only signed checkpoints: fail when there is no trust key to check with."   \
    }

#define CLI_SIGN_KEY_OPTION(type, field, what)                                                     \
    {                                                                                              \
        .name = "sign-key", .kind = OPT_STRING, .arg = "FILE",                                     \
        .offset = offsetof(type, field) + offsetof(struct cli_keys, sign),                         \
        .env = "CHREK_SIGN_KEY", .help = (what)                                                    \
    }

/* For commands that make checkpoints. */
#define CLI_SIGN_OPTION(type, field)                                                               \
    CLI_SIGN_KEY_OPTION(type, field,                                                               \
                        "Sign the checkpoint with this key, a file of `chrek key generate "        \
                        "--sign`."),                                                               \
    {                                                                                              \
        .name = "unencrypted", .kind = OPT_FLAG,                                                   \
        .offset = offsetof(type, field) + offsetof(struct cli_keys, unencrypted),                  \
        .help = "Store it readable although others of the store are encrypted; without this and "  \
                "without a key that is an error."                                                  \
    }

/* Read the keys that were asked for, else those of the configuration.  Once there are any, the
 * process leaves no core file and lets nobody but root look into it.
 * out  the caller's, vault_done() */
enum rc cli_open_vault(const struct cli_keys *k, struct vault *out, struct err *err);

/* Before something is saved: say it when that is the first encrypted checkpoint among readable
 * ones, since from then on nobody saves there without a key. */
void cli_warn_first_encrypted(struct store *s, const struct vault *v);

/* cli_open_cached() or cli_open_store(), and cli_open_vault(), which must outlive the store. */
struct cli_cache;
enum rc cli_open_cached_with(const char *asked, const struct cli_cache *cache,
                             const struct cli_keys *k, struct vault *out_vault, struct store **out,
                             bool *out_cached, struct err *err);
enum rc cli_open_store_with(const char *asked, const struct cli_keys *k, struct vault *out_vault,
                            struct store **out, struct err *err);
/* The same with cli_open_existing(). */
enum rc cli_open_existing_with(const char *asked, const struct cli_keys *k, struct vault *out_vault,
                               struct store **out, struct err *err);

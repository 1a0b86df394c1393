#include "cli/keys.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/config.h"

#include <string.h>
#include <sys/prctl.h>

enum rc cli_open_vault(const struct cli_keys *k, struct vault *out, struct err *err)
{
    struct config_keys c = {.key_file = NULL};
    enum rc rc = config_read_keys(&c, err);
    if (rc)
        return rc;
    bool own = k->file || k->command; /* what is said now counts instead of what was configured */
    struct vault_options o = {
        .key = {.file = own ? k->file : c.key_file,
                .command = own ? k->command : c.key_command,
                .timeout_ns = k->timeout},
        .sign_key = k->sign ? k->sign : c.sign_key,
        .trust_key = k->trust ? k->trust : c.trust_key,
        .require = k->require || c.require_signature,
    };
    rc = vault_open(&o, out, err);
    config_keys_done(&c);
    if (!rc && (out->keys || out->signer))
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* a program that is exec'd gets its own */
    return rc;
}

enum rc cli_open_cached_with(const char *asked, const struct cli_cache *cache,
                             const struct cli_keys *k, struct vault *out_vault, struct store **out,
                             bool *out_cached, struct err *err)
{
    CLEANUP(vault_done) struct vault v = {.keys = NULL};
    enum rc rc = cli_open_vault(k, &v, err);
    if (!rc)
        rc = cache ? cli_open_cached(asked, cache, out, out_cached, err)
                   : cli_open_store(asked, out, err);
    if (rc)
        return rc;
    *out_vault = v;
    v = (struct vault){.keys = NULL};
    store_use_vault(*out, out_vault);
    if (k->unencrypted)
        store_allow_clear(*out);
    return RC_OK;
}

enum rc cli_open_existing_with(const char *asked, const struct cli_keys *k, struct vault *out_vault,
                               struct store **out, struct err *err)
{
    enum rc rc = cli_check_store(asked, err);
    return rc ? rc : cli_open_store_with(asked, k, out_vault, out, err);
}

enum rc cli_open_store_with(const char *asked, const struct cli_keys *k, struct vault *out_vault,
                            struct store **out, struct err *err)
{
    return cli_open_cached_with(asked, NULL, k, out_vault, out, NULL, err);
}

void cli_warn_first_encrypted(struct store *s, const struct vault *v)
{
    bool encrypted = false;
    char **ids = NULL;
    if (!v->keys || store_is_encrypted(s, &encrypted, NULL) != RC_OK || encrypted ||
        store_list(s, &ids, NULL) != RC_OK)
        return;
    if (*ids)
        cli_note("warning: the first encrypted checkpoint of a store that has readable ones: from "
                 "now on saving there takes a key, or --unencrypted. A store of its own is better");
    store_free_ids(ids);
}

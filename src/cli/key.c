/* chrek key: making, showing and rotating keys. */
#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/rand.h"
#include "base/sys.h"
#include "base/term.h"
#include "cli/cli.h"
#include "cli/keys.h"
#include "codec/hex.h"
#include "codec/json.h"
#include "codec/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct key_values {
    const char *store, *storage, *new_file, *new_command;
    struct cli_keys keys;
    bool sign, keep, json;
};

static const struct opt key_options[] = {
    {.name = "sign",
     .kind = OPT_FLAG,
     .offset = offsetof(struct key_values, sign),
     .help = "With generate: a pair for signatures; FILE is the private key, FILE.pub the one for "
             "--trust-key."},
    {.name = "new-key-file",
     .kind = OPT_STRING,
     .arg = "FILE",
     .offset = offsetof(struct key_values, new_file),
     .help = "With rotate: the key to wrap the store's data keys with from now on."},
    {.name = "new-key-command",
     .kind = OPT_STRING,
     .arg = "COMMAND",
     .offset = offsetof(struct key_values, new_command),
     .help = "With rotate: the key service to wrap them with from now on."},
    {.name = "keep",
     .kind = OPT_FLAG,
     .offset = offsetof(struct key_values, keep),
     .help = "With rotate: let the old key go on to open the store."},
    CLI_STORE_OPTION(struct key_values, store),
    CLI_STORAGE_OPTION(struct key_values, storage),
    CLI_KEY_OPTIONS(struct key_values, keys),
    CLI_JSON_OPTION(struct key_values, json),
    {.name = NULL},
};

/* ---- generate ---- */

/* A new file that only its owner may read; one that is there stays. */
static enum rc write_new(const char *path, mode_t mode, const void *data, size_t len,
                         struct err *err)
{
    CLEANUP(fd_closep)
    int fd = sys_openat(AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
    if (fd < 0 && errno == EEXIST)
        return err_set(err, RC_EXISTS,
                       "'%.200s' is already there; give the key another name: what one opens would "
                       "be lost with it",
                       path);
    if (fd < 0 && errno == ENOENT)
        return err_set(err, RC_NOT_FOUND, "write '%.200s'; make its directory first", path);
    if (fd < 0)
        return err_sys(err, "write '%.200s'", path);
    enum rc rc = sys_write_all(fd, data, len, err);
    if (!rc && sys_fsync(fd) < 0)
        rc = err_sys(err, "fsync '%.200s'", path);
    if (rc)
        (void)sys_unlinkat(AT_FDCWD, path, 0);
    return rc;
}

static enum rc generate_key(const char *path, struct err *err)
{
    CLEANUP(secret_freep) uint8_t *key = secret_alloc(CIPHER_KEY);
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    rand_bytes(key, CIPHER_KEY);
    keyfile_format(key, &text);
    enum rc rc = write_new(path, 0600, text.data, text.len, err);
    secret_wipe(text.data, text.len);
    return rc;
}

static enum rc generate_pair(const char *path, struct err *err)
{
    CLEANUP(buf_done) struct buf private = BUF_INIT;
    CLEANUP(buf_done) struct buf public = BUF_INIT;
    CLEANUP(mem_freep) char *public_path = mem_asprintf("%s.pub", path);
    enum rc rc = signature_generate(&private, &public, err);
    if (rc)
        return rc;
    rc = write_new(path, 0600, private.data, private.len, err);
    secret_wipe(private.data, private.len);
    return rc ? rc : write_new(public_path, 0644, public.data, public.len, err);
}

static enum rc generate(const struct key_values *v, const char *path, struct buf *out,
                        struct err *err)
{
    if (!path)
        return err_set(err, RC_INVALID, "which file? chrek key generate [--sign] FILE");
    enum rc rc = v->sign ? generate_pair(path, err) : generate_key(path, err);
    if (!rc)
        buf_addf(out, "%s\n%s%s", path, v->sign ? path : "", v->sign ? ".pub\n" : "");
    return rc;
}

/* ---- list ---- */

static void add_row(struct term_table *t, yyjson_mut_doc *doc, yyjson_mut_val *list,
                    const struct wrapped_key *w, bool given, bool fits)
{
    char data[2 * KEYFILE_ID + 1], wrapping[2 * KEYFILE_ID + 1], made[32] = "";
    bool service = w->kind == KEYFILE_BY_SERVICE;
    time_t at = (time_t)w->made_at;
    struct tm tm;
    hex_format(w->data.bytes, KEYFILE_ID, data);
    hex_format(w->wrapping.bytes, KEYFILE_ID, wrapping);
    if (gmtime_r(&at, &tm))
        (void)strftime(made, sizeof(made), "%Y-%m-%dT%H:%M:%SZ", &tm);
    const char *opens = !given ? "" : !fits ? "no" : service ? "try" : "yes";
    const char *cells[] = {data, service ? "key service" : wrapping, made, opens};
    term_table_row(t, cells);
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
    (void)yyjson_mut_obj_add_strcpy(doc, o, "data_key", data);
    (void)yyjson_mut_obj_add_strcpy(doc, o, "wrapping", wrapping);
    (void)yyjson_mut_obj_add_str(doc, o, "by", service ? "service" : "file");
    (void)yyjson_mut_obj_add_strcpy(doc, o, "made_at", made);
    if (given)
        (void)yyjson_mut_obj_add_bool(doc, o, "fits", fits);
}

static enum rc list(const struct key_values *v, struct store *store, const struct vault *vault,
                    struct buf *out, struct err *err)
{
    static const char *const titles[] = {"DATA KEY", "WRAPPED WITH", "SINCE", "OPENS"};
    struct wrapped_key *keys = NULL;
    size_t n = 0;
    enum rc rc = keyring_list(store_backend(store), &keys, &n, err);
    if (rc)
        return rc;
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *array = yyjson_mut_arr(doc);
    yyjson_mut_doc_set_root(doc, array);
    struct term_table table;
    term_table_init(&table, titles, ARRAY_LEN(titles));
    for (size_t i = 0; i < n; i++)
        add_row(&table, doc, array, &keys[i], vault->keys != NULL,
                vault->keys && keyring_fits(vault->keys, &keys[i]));
    free(keys);
    if (v->json) {
        json_write(doc, out);
        buf_adds(out, "\n");
    } else if (n) {
        term_table_print(&table, out);
    } else {
        buf_addf(out, "No keys in %s: nothing in it is encrypted\n", store_path(store));
    }
    term_table_done(&table);
    return RC_OK;
}

/* ---- rotate ---- */

static enum rc rotate(const struct key_values *v, struct store *store, const struct vault *vault,
                      struct buf *out, struct err *err)
{
    CLEANUP(keyring_freep) struct keyring *new = NULL;
    struct key_source s = {v->new_file, v->new_command, v->keys.timeout};
    struct keyring_rotation r;
    if (!vault->keys)
        return err_set(err, RC_INVALID,
                       "which key opens the store now? Give --key-file or "
                       "--key-command");
    if (!s.file == !s.command)
        return err_set(err, RC_INVALID,
                       "which key shall open the store from now on? Give "
                       "--new-key-file or --new-key-command");
    enum rc rc = keyring_open(&s, &new, err);
    if (!rc)
        rc = keyring_rotate(vault->keys, new, store_backend(store), v->keep, &r, err);
    if (rc)
        return rc;
    if (v->json)
        buf_addf(out, "{\"keys\": %zu, \"removed\": %zu}\n", r.keys, r.removed);
    else if (!r.keys && !r.removed)
        buf_adds(out,
                 "nothing to do: the old key opens no data key of the store (any more), the new "
                 "one does\n");
    else
        buf_addf(out,
                 "%zu data key%s wrapped anew, %zu old wrapping%s removed; no checkpoint was "
                 "written again\n",
                 r.keys, r.keys == 1 ? "" : "s", r.removed, r.removed == 1 ? "" : "s");
    return RC_OK;
}

static int key_main(const struct opt_command *self, int argc, char **argv)
{
    struct key_values v = {0};
    struct err err = ERR_INIT;
    int first = 0;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CLEANUP(vault_done) struct vault vault = {.keys = NULL};
    CLEANUP(store_freep) struct store *store = NULL;
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (rc)
        return cli_fail(&err);
    const char *what = argv[first], *file = first + 1 < argc ? argv[first + 1] : NULL;
    bool make = strcmp(what, "generate") == 0;
    if (!make && strcmp(what, "list") != 0 && strcmp(what, "rotate") != 0)
        rc = err_set(&err, RC_INVALID, "'%.32s': want generate, list or rotate", what);
    else if (!make && file)
        rc = err_set(&err, RC_INVALID, "'%.64s' is one word too many", file);
    if (!rc && make)
        rc = generate(&v, file, &out, &err);
    else if (!rc)
        rc = cli_open_existing_with(v.store ? v.store : v.storage, &v.keys, &vault, &store, &err);
    if (!rc && !make)
        rc = strcmp(what, "list") == 0 ? list(&v, store, &vault, &out, &err)
                                       : rotate(&v, store, &vault, &out, &err);
    return rc ? cli_fail(&err) : cli_print(&out);
}

const struct opt_command cmd_key = {
    .name = "key",
    .summary = "make, list and rotate keys",
    .synopsis = "[OPTIONS] generate|list|rotate [FILE]",
    .description =
        "generate FILE makes a key that checkpoints are encrypted with (run, checkpoint and "
        "restore "
        "take it as --key-file), or with --sign a pair that they are signed with (--sign-key) and "
        "recognised by (--trust-key). Keep a copy: without its key a checkpoint is lost.\n\n"
        "list shows the data keys of a store and what each is wrapped with; with --key-file, too, "
        "which of them that opens.\n\n"
        "rotate wraps them with another key, in a moment: no checkpoint is written again. The old "
        "key opens nothing any more, unless --keep. It does not help against somebody who had the "
        "old key and has read the store: make a new checkpoint in a new store then.",
    .examples = "  chrek key generate /etc/chrek/key\n"
                "  chrek run --name web --key-file /etc/chrek/key --ready tcp:8080 -- ./server\n"
                "  chrek key rotate --key-file /etc/chrek/key --new-key-file /etc/chrek/key-2\n"
                "  chrek key generate --sign /etc/chrek/signer\n",
    .opts = key_options,
    .min_operands = 1,
    .max_operands = 2,
    .run = key_main,
};

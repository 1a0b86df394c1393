/* chrek verify: is every byte still right, and if not, where is a right one. */
#include "base/compiler.h"
#include "base/mem.h"
#include "base/term.h"
#include "cli/cli.h"
#include "cli/keys.h"
#include "codec/json.h"
#include "engine/watch.h"
#include "store/scrub.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 4

struct verify_values {
    const char *store, *storage, *from;
    bool json, quiet, all, repair;
    struct cli_keys keys;
};

static const struct opt options[] = {
    CLI_STORE_OPTION(struct verify_values, store),
    CLI_STORAGE_OPTION(struct verify_values, storage),
    CLI_KEY_OPTIONS(struct verify_values, keys),
    {.name = "all",
     .letter = 'a',
     .kind = OPT_FLAG,
     .offset = offsetof(struct verify_values, all),
     .help = "Every checkpoint of the store, and every pack, each read once."},
    {.name = "repair",
     .kind = OPT_FLAG,
     .offset = offsetof(struct verify_values, repair),
     .help = "Replace what is damaged or missing by what --from has."},
    {.name = "from",
     .kind = OPT_STRING,
     .arg = "DIR",
     .offset = offsetof(struct verify_values, from),
     .help = "A store that has the same checkpoints. What it has is verified, too."},
    CLI_JSON_OPTION(struct verify_values, json),
    {.name = "quiet",
     .letter = 'q',
     .kind = OPT_FLAG,
     .offset = offsetof(struct verify_values, quiet),
     .help = "Show no progress."},
    {.name = NULL},
};

/* What a run of the command has and says. */
struct verify {
    const struct verify_values *v;
    struct engine engine;
    struct store *store, *from;
    struct buf out;
    yyjson_mut_doc *doc;
    yyjson_mut_val *checkpoints, *packs; /* arrays */
    int code;
    struct buf hint; /* the last that was shown */
};

/* An error of one of many: it says whose it is, and what was advised just before is not again. */
static int tell(struct verify *x, const char *name, const struct err *why)
{
    CLEANUP(mem_freep) char *quoted = mem_asprintf("'%s'", name);
    struct err full = *why;
    if (!strstr(why->msg, quoted))
        (void)err_ctx(&full, full.rc, "%s", quoted);
    return cli_fail_again(&full, &x->hint);
}

/* One checkpoint or pack.  repaired: NULL when there was nothing to do */
static void say(struct verify *x, yyjson_mut_val *list, const char *key, const char *name,
                uint64_t bytes, const struct err *why, const struct repair *repaired)
{
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(x->doc, list);
    (void)yyjson_mut_obj_add_strcpy(x->doc, o, key, name);
    (void)yyjson_mut_obj_add_bool(x->doc, o, "whole", why == NULL);
    if (why)
        (void)yyjson_mut_obj_add_strcpy(x->doc, o, "error", why->msg);
    if (repaired) {
        (void)yyjson_mut_obj_add_uint(x->doc, o, "files_repaired", repaired->files);
        (void)yyjson_mut_obj_add_uint(x->doc, o, "packs_repaired", repaired->packs);
    }
    if (why) {
        x->code = x->v->json ? cli_exit_of(why->rc) : tell(x, name, why);
        return;
    }
    if (list == x->packs)
        return;
    buf_addf(&x->out, "%s\twhole, ", name);
    term_size(bytes, &x->out);
    buf_adds(&x->out, " verified");
    if (repaired)
        buf_addf(&x->out, " after repair of %zu files and %zu packs", repaired->files,
                 repaired->packs);
    buf_adds(&x->out, "\n");
}

static enum rc verify_once(struct verify *x, const char *id, uint64_t *out_bytes, struct err *err)
{
    CLEANUP(store_entry_freep) struct store_entry *entry = NULL;
    enum rc rc = store_find(x->store, id, &entry, err);
    if (rc)
        return rc;
    uint64_t done = 0;
    struct watch *w =
        watch_counter(&x->engine, "Verifying", &done, store_entry_metadata(entry)->total_bytes);
    rc = store_verify(entry, STORE_ALL, THREADS, &done, err);
    watch_stop(w);
    *out_bytes = done;
    return rc;
}

static void verify_one(struct verify *x, const char *id)
{
    struct err why = ERR_INIT;
    uint64_t bytes = 0;
    struct repair repaired = {0};
    bool repairs = false;
    enum rc rc = verify_once(x, id, &bytes, &why);
    if (rc && x->from) {
        why = (struct err)ERR_INIT;
        rc = store_repair(x->store, x->from, id, &repaired, &why);
        repairs = rc == RC_OK;
        if (!rc)
            rc = verify_once(x, id, &bytes, &why);
    }
    cli_engine_end(&x->engine);
    say(x, x->checkpoints, "id", id, bytes, rc ? &why : NULL, repairs ? &repaired : NULL);
}

static struct err error_of(const struct scrub_item *i)
{
    struct err err = ERR_INIT;
    (void)!err_set(&err, i->rc, "%s", i->why);
    return err;
}

static enum rc verify_all(struct verify *x, struct err *err)
{
    CLEANUP(scrub_done) struct scrub s = {0};
    uint64_t done = 0, bytes = 0;
    struct watch *w = watch_counter(&x->engine, "Verifying", &done, 0);
    enum rc rc = store_scrub(x->store, THREADS, &done, &s, err);
    watch_stop(w);
    cli_engine_end(&x->engine);
    for (size_t i = 0; !rc && i < s.n_checkpoints; i++) {
        const struct scrub_item *c = &s.checkpoints[i];
        struct err why = error_of(c);
        if (c->rc && x->from)
            verify_one(x, c->name);
        else
            say(x, x->checkpoints, "id", c->name, c->bytes, c->rc ? &why : NULL, NULL);
    }
    if (!rc && s.damaged && x->from) { /* what was brought back counts as it is now */
        scrub_done(&s);
        rc = store_scrub(x->store, THREADS, &done, &s, err);
    }
    for (size_t i = 0; !rc && i < s.n_packs; i++) {
        struct err why = error_of(&s.packs[i]);
        bytes += s.packs[i].bytes;
        say(x, x->packs, "name", s.packs[i].name, 0, s.packs[i].rc ? &why : NULL, NULL);
    }
    if (rc)
        return rc;
    buf_addf(&x->out, "%zu checkpoint%s, %zu pack%s, ", s.n_checkpoints,
             s.n_checkpoints == 1 ? "" : "s", s.n_packs, s.n_packs == 1 ? "" : "s");
    term_size(bytes, &x->out);
    buf_adds(&x->out, " read\n");
    return RC_OK;
}

static int print(struct verify *x)
{
    if (x->v->json) {
        yyjson_mut_val *root = x->checkpoints;
        if (x->v->all) {
            root = yyjson_mut_obj(x->doc);
            (void)yyjson_mut_obj_add_val(x->doc, root, "checkpoints", x->checkpoints);
            (void)yyjson_mut_obj_add_val(x->doc, root, "packs", x->packs);
        }
        yyjson_mut_doc_set_root(x->doc, root);
        buf_done(&x->out);
        json_write(x->doc, &x->out);
        buf_adds(&x->out, "\n");
    }
    int printed = cli_print(&x->out);
    return x->code ? x->code : printed;
}

static enum rc check_values(const struct verify_values *v, int operands, struct err *err)
{
    if (v->all == (operands > 0))
        return err_set(err, RC_INVALID,
                       v->all ? "--all and ids contradict each other"
                              : "which checkpoint? Name it, or say --all");
    if (v->repair != (v->from != NULL))
        return err_set(err, RC_INVALID,
                       v->repair ? "--repair needs --from STORE" : "--from is for --repair");
    return RC_OK;
}

static int verify_main(const struct opt_command *self, int argc, char **argv)
{
    struct verify_values v = {0};
    struct err err = ERR_INIT;
    int first = 0;
    CLEANUP(mem_freep) char *none = NULL;
    CLEANUP(vault_done) struct vault vault = {.keys = NULL};
    CLEANUP(store_freep) struct store *store = NULL;
    CLEANUP(store_freep) struct store *from = NULL;
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    struct verify x = {.v = &v, .doc = doc};
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc)
        rc = check_values(&v, argc - first, &err);
    if (!rc)
        rc = cli_open_existing_with(v.store ? v.store : v.storage, &v.keys, &vault, &store, &err);
    if (!rc && v.from)
        rc = cli_open_existing(v.from, &from, &err);
    if (!rc)
        rc = cli_engine("unused", v.quiet || v.json, &x.engine, &none, &err);
    if (rc)
        return cli_fail(&err);
    if (from)
        store_use_vault(from, &vault);
    x.store = store;
    x.from = from;
    x.checkpoints = yyjson_mut_arr(doc);
    x.packs = yyjson_mut_arr(doc);
    for (int i = first; i < argc; i++)
        verify_one(&x, argv[i]);
    if (v.all)
        rc = verify_all(&x, &err);
    int code = rc ? cli_fail(&err) : print(&x);
    buf_done(&x.out);
    buf_done(&x.hint);
    return code;
}

const struct opt_command cmd_verify = {
    .name = "verify",
    .summary = "compare every byte of checkpoints with what was written",
    .synopsis = "[OPTIONS] ID...|--all",
    .description =
        "Reads every file of the checkpoints, and their memory, and compares it with the digests "
        "that were recorded when they were made. With --all every checkpoint and every pack of the "
        "store, each once.\n\n"
        "With --repair what is damaged or missing is fetched from another store that has the same "
        "checkpoint, verified, and put in its place; what is whole is not touched.",
    .examples = "  chrek verify web\n"
                "  chrek verify --all --json\n"
                "  chrek verify --all --repair --from /mnt/backup/checkpoints\n",
    .opts = options,
    .max_operands = -1,
    .candidates = "__ids",
    .run = verify_main,
};

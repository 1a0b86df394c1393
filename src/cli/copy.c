/* chrek copy: checkpoints from one store into another. */
#include "store/copy.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/term.h"
#include "cli/cli.h"
#include "codec/json.h"
#include "engine/watch.h"

#include <string.h>

#define THREADS 4U

struct copy_values {
    bool all, replace, unencrypted, json, quiet;
};

static const struct opt options[] = {
    {.name = "all",
     .kind = OPT_FLAG,
     .offset = offsetof(struct copy_values, all),
     .help = "Every checkpoint of the first store that can be used."},
    {.name = "replace",
     .kind = OPT_FLAG,
     .offset = offsetof(struct copy_values, replace),
     .help = "Also where the other store has another checkpoint of this id."},
    {.name = "unencrypted",
     .kind = OPT_FLAG,
     .offset = offsetof(struct copy_values, unencrypted),
     .help = "Copy what is readable also into a store whose checkpoints are encrypted; without "
             "this that is an error, unless it becomes one by this very copy of --all."},
    CLI_JSON_OPTION(struct copy_values, json),
    {.name = "quiet",
     .letter = 'q',
     .kind = OPT_FLAG,
     .offset = offsetof(struct copy_values, quiet),
     .help = "Show no progress."},
    {.name = NULL},
};

struct copying {
    const struct copy_values *v;
    struct store *from, *to;
    struct engine engine; /* for its progress */
    yyjson_mut_doc *doc;
    yyjson_mut_val *array;
    struct buf text;
    int code;
};

static void report(struct copying *c, const char *id, const struct store_copied *n,
                   const struct err *why)
{
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(c->doc, c->array);
    (void)yyjson_mut_obj_add_strcpy(c->doc, o, "id", id);
    (void)yyjson_mut_obj_add_bool(c->doc, o, "copied", !why);
    if (why) {
        (void)yyjson_mut_obj_add_strcpy(c->doc, o, "error", why->msg);
        c->code = c->v->json ? cli_exit_of(why->rc) : cli_fail(why);
        return;
    }
    (void)yyjson_mut_obj_add_bool(c->doc, o, "there", n->there);
    (void)yyjson_mut_obj_add_uint(c->doc, o, "packs", n->packs);
    (void)yyjson_mut_obj_add_uint(c->doc, o, "bytes", n->bytes);
    (void)yyjson_mut_obj_add_uint(c->doc, o, "packs_there", n->packs_there);
    (void)yyjson_mut_obj_add_uint(c->doc, o, "bytes_there", n->bytes_there);
    if (n->there) {
        buf_addf(&c->text, "%s\tis there\n", id);
        return;
    }
    buf_addf(&c->text, "%s\tcopied, ", id);
    term_size(n->bytes, &c->text);
    buf_adds(&c->text, " of memory sent, ");
    term_size(n->bytes_there, &c->text);
    buf_adds(&c->text, " was there\n");
}

static void copy_one(struct copying *c, const char *id)
{
    struct store_copied n = {0};
    struct err why = ERR_INIT;
    uint64_t done = 0;
    struct watch *w = watch_counter(&c->engine, "Copying", &done, 0);
    enum rc rc = store_copy(c->from, id, c->to, c->v->replace, THREADS, &done, &n, &why);
    watch_stop(w);
    cli_engine_end(&c->engine);
    report(c, id, &n, rc ? &why : NULL);
}

/* One encrypted checkpoint of several brings its key along, and that must not shut out the rest. */
static enum rc copy_all(struct copying *c, struct err *err)
{
    char **ids = NULL;
    bool encrypted = false;
    enum rc rc = store_is_encrypted(c->to, &encrypted, err);
    if (!rc && !encrypted)
        store_allow_clear(c->to);
    if (!rc)
        rc = store_list(c->from, &ids, err);
    for (char **id = ids; !rc && *id; id++) {
        CLEANUP(store_entry_freep) struct store_entry *e = NULL;
        if (store_find(c->from, *id, &e, NULL) == RC_OK)
            copy_one(c, *id);
    }
    store_free_ids(ids);
    return rc;
}

static int copy_main(const struct opt_command *self, int argc, char **argv)
{
    struct copy_values v = {0};
    struct err err = ERR_INIT;
    int first = 0;
    CLEANUP(mem_freep) char *none = NULL;
    CLEANUP(store_freep) struct store *from = NULL;
    CLEANUP(store_freep) struct store *to = NULL;
    struct copying c = {.v = &v};
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc && v.all != (argc - first == 2))
        rc = err_set(&err, RC_INVALID, "copy: want ids of checkpoints, or --all");
    if (!rc)
        rc = cli_open_existing(argv[first], &from, &err);
    if (!rc)
        rc = cli_open_store(argv[first + 1], &to, &err);
    if (!rc && v.unencrypted)
        store_allow_clear(to);
    if (!rc)
        rc = cli_engine("unused", v.quiet || v.json, &c.engine, &none, &err);
    if (rc)
        return cli_fail(&err);
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    c.from = from;
    c.to = to;
    c.doc = doc;
    c.array = yyjson_mut_arr(doc);
    yyjson_mut_doc_set_root(doc, c.array);
    if (v.all)
        rc = copy_all(&c, &err);
    for (int i = first + 2; i < argc; i++)
        copy_one(&c, argv[i]);
    if (v.json) {
        buf_done(&c.text);
        json_write(doc, &c.text);
        buf_adds(&c.text, "\n");
    }
    int printed = rc ? cli_fail(&err) : cli_print(&c.text);
    buf_done(&c.text);
    return c.code ? c.code : printed;
}

const struct opt_command cmd_copy = {
    .name = "copy",
    .summary = "copy checkpoints from one store to another",
    .synopsis = "[OPTIONS] FROM TO [ID...]",
    .description =
        "Copies checkpoints from the store FROM to the store TO, both a path or an URL as for "
        "--store. Memory that TO has already is not sent again, so a copy that was interrupted "
        "goes on where it was, and the second of two similar checkpoints is small. Every byte is "
        "verified on the way; a checkpoint appears in TO when all of it is there.",
    .examples = "  chrek copy /var/lib/chrek/checkpoints s3://bucket/checkpoints web\n"
                "  chrek copy --all /mnt/old /mnt/new\n",
    .opts = options,
    .min_operands = 2,
    .max_operands = -1,
    .run = copy_main,
};

/* chrek gc: what nobody needs any more. */
#include "store/gc.h"

#include "base/compiler.h"
#include "base/term.h"
#include "cli/cli.h"
#include "cli/keys.h"
#include "codec/json.h"
#include "store/retention.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NOT_GIVEN UINT64_MAX

struct gc_values {
    const char *store, *storage, *per;
    uint64_t keep_last, keep_within; /* keep_last: NOT_GIVEN, or what was said */
    bool dry, json;
    struct cli_keys keys;
};

static const struct opt options[] = {
    CLI_STORE_OPTION(struct gc_values, store),
    CLI_STORAGE_OPTION(struct gc_values, storage),
    CLI_KEY_OPTIONS(struct gc_values, keys),
    {.name = "dry-run",
     .letter = 'n',
     .kind = OPT_FLAG,
     .offset = offsetof(struct gc_values, dry),
     .help = "Only say what would go."},
    {.name = "keep-last",
     .kind = OPT_U64,
     .arg = "N",
     .offset = offsetof(struct gc_values, keep_last),
     .help = "Delete checkpoints, but the newest N."},
    {.name = "keep-within",
     .kind = OPT_DURATION,
     .arg = "TIME",
     .offset = offsetof(struct gc_values, keep_within),
     .help = "Delete checkpoints, but those younger than this: 12h, 7d. With --keep-last a "
             "checkpoint stays if either keeps it."},
    {.name = "per",
     .kind = OPT_STRING,
     .arg = "all|name",
     .offset = offsetof(struct gc_values, per),
     .help = "What --keep-last counts: all checkpoints (the default), or those of each box (name) "
             "for themselves."},
    CLI_JSON_OPTION(struct gc_values, json),
    {.name = NULL},
};

static void print_people(const struct gc_values *v, char *const *retired,
                         const struct store_collected *c, struct buf *out)
{
    const char *verb = v->dry ? "would be " : "";
    for (char *const *id = retired; *id; id++)
        buf_addf(out, "%s\t%sdeleted\n", *id, verb);
    buf_addf(out, "%" PRIu64 " packs (", c->packs);
    term_size(c->bytes, out);
    buf_addf(out, ") %sremoved, %" PRIu64 " (", verb, c->kept);
    term_size(c->kept_bytes, out);
    buf_adds(out, ") in use\n");
    if (c->young)
        buf_addf(out,
                 "%" PRIu64
                 " unfinished, broken off less than %d s ago: left for the next gc, since "
                 "somebody may just have begun it\n",
                 c->young, STORE_YOUNG_S);
}

static void print_json(const struct gc_values *v, char *const *retired,
                       const struct store_collected *c, struct buf *out)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc), *list = yyjson_mut_arr(doc);
    yyjson_mut_doc_set_root(doc, o);
    for (char *const *id = retired; *id; id++)
        (void)yyjson_mut_arr_add_str(doc, list, *id);
    (void)yyjson_mut_obj_add_bool(doc, o, "dry_run", v->dry);
    (void)yyjson_mut_obj_add_val(doc, o, "deleted", list);
    (void)yyjson_mut_obj_add_uint(doc, o, "packs_removed", c->packs);
    (void)yyjson_mut_obj_add_uint(doc, o, "bytes_removed", c->bytes);
    (void)yyjson_mut_obj_add_uint(doc, o, "packs_kept", c->kept);
    (void)yyjson_mut_obj_add_uint(doc, o, "bytes_kept", c->kept_bytes);
    (void)yyjson_mut_obj_add_uint(doc, o, "unfinished_left", c->young);
    json_write(doc, out);
    buf_adds(out, "\n");
}

static enum rc parse_rules(const struct gc_values *v, struct retention *out, struct err *err)
{
    bool per_name = v->per && strcmp(v->per, "name") == 0;
    if (v->per && !per_name && strcmp(v->per, "all") != 0)
        return err_set(err, RC_INVALID, "--per '%.32s' is neither all nor name", v->per);
    if (v->keep_last == 0 && !v->keep_within)
        return err_set(
            err, RC_INVALID,
            "--keep-last 0 would delete every checkpoint; name those that shall go: chrek "
            "delete ID...");
    uint64_t last = v->keep_last == NOT_GIVEN ? 0 : v->keep_last;
    *out = (struct retention){last, v->keep_within, per_name};
    return RC_OK;
}

static int gc_main(const struct opt_command *self, int argc, char **argv)
{
    struct gc_values v = {.keep_last = NOT_GIVEN};
    struct err err = ERR_INIT;
    int first = 0;
    char **retired = NULL;
    struct retention rules;
    struct store_collected c;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CLEANUP(vault_done) struct vault vault = {.keys = NULL};
    CLEANUP(store_freep) struct store *store = NULL;
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc)
        rc = parse_rules(&v, &rules, &err);
    if (!rc)
        rc = cli_open_existing_with(v.store ? v.store : v.storage, &v.keys, &vault, &store, &err);
    if (!rc)
        rc = store_retire(store, &rules, v.dry, &retired, &err);
    if (!rc)
        rc = v.dry ? store_gc_without(store, retired, &c, &err) : store_gc(store, false, &c, &err);
    if (!rc && v.json)
        print_json(&v, retired, &c, &out);
    else if (!rc)
        print_people(&v, retired, &c, &out);
    store_free_ids(retired);
    return rc ? cli_fail(&err) : cli_print(&out);
}

const struct opt_command cmd_gc = {
    .name = "gc",
    .summary = "remove what no checkpoint needs",
    .synopsis = "[OPTIONS]",
    .description =
        "Removes memory that no checkpoint refers to any more, and what crashed attempts have "
        "left. With --keep-last or --keep-within it first deletes the checkpoints that have had "
        "their time; those that cannot be used are never deleted so.\n\n"
        "It never takes what somebody needs: while a checkpoint is being made it refuses, and what "
        "a restore is reading stays until a later gc.",
    .examples = "  chrek gc --dry-run\n"
                "  chrek gc --keep-last 3 --keep-within 7d --per name\n",
    .opts = options,
    .run = gc_main,
};

/* chrek gc: what nobody needs any more. */
#include "store/gc.h"

#include "base/compiler.h"
#include "base/term.h"
#include "cli/cli.h"
#include "cli/keys.h"
#include "cli/text.h"
#include "codec/json.h"
#include "store/repack.h"
#include "store/retention.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NOT_GIVEN UINT64_MAX

struct gc_values {
    const char *store, *storage, *per;
    uint64_t keep_last, keep_within; /* keep_last: NOT_GIVEN, or what was said */
    bool dry, json, repack;
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
    {.name = "repack",
     .kind = OPT_FLAG,
     .offset = offsetof(struct gc_values, repack),
     .help = "Also write memory anew that lies scattered over packs, or in packs that are mostly "
             "garbage, and remove the old packs. Needs room for what is written."},
    CLI_SIGN_KEY_OPTION(struct gc_values, keys,
                        "With --repack: sign signed checkpoints anew with this key. They must have "
                        "been signed with it, or be trusted by --trust-key."),
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

/* What was done, or would be. */
struct gc_result {
    char **retired;
    struct store_collected c;
    struct repacked r;
    bool late; /* old packs are still there: somebody makes checkpoints */
};

static void print_repacked(const struct gc_values *v, const struct gc_result *g, struct buf *out)
{
    const char *verb = v->dry ? "would be " : "";
    for (const struct repack_left *l = g->r.left; l < g->r.left + g->r.n_left; l++) {
        text_plain(out, l->id);
        buf_adds(out, "\tnot repacked: ");
        text_plain(out, l->why);
        buf_adds(out, "\n");
    }
    buf_addf(out, "%" PRIu64 " checkpoints %srepacked: ", g->r.checkpoints, verb);
    term_size(g->r.moved, out);
    buf_addf(out, " of packs %swritten in the place of ", verb);
    term_size(g->r.freed, out);
    buf_adds(out, g->late ? ", which the next gc removes: a checkpoint is being made\n" : "\n");
}

static void print_people(const struct gc_values *v, const struct gc_result *g, struct buf *out)
{
    const struct store_collected *c = &g->c;
    const char *verb = v->dry ? "would be " : "";
    for (char *const *id = g->retired; *id; id++)
        buf_addf(out, "%s\t%sdeleted\n", *id, verb);
    if (v->repack)
        print_repacked(v, g, out);
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

static void add_repacked(const struct gc_result *g, yyjson_mut_doc *doc, yyjson_mut_val *root)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc), *list = yyjson_mut_arr(doc);
    (void)yyjson_mut_obj_add_val(doc, root, "repack", o);
    (void)yyjson_mut_obj_add_uint(doc, o, "checkpoints", g->r.checkpoints);
    (void)yyjson_mut_obj_add_uint(doc, o, "bytes_written", g->r.moved);
    (void)yyjson_mut_obj_add_uint(doc, o, "bytes_replaced", g->r.freed);
    (void)yyjson_mut_obj_add_bool(doc, o, "old_packs_left", g->late);
    for (const struct repack_left *l = g->r.left; l < g->r.left + g->r.n_left; l++) {
        yyjson_mut_val *left = yyjson_mut_arr_add_obj(doc, list);
        text_json(doc, left, "id", l->id);
        text_json(doc, left, "error", l->why);
    }
    (void)yyjson_mut_obj_add_val(doc, o, "left", list);
}

static void print_json(const struct gc_values *v, const struct gc_result *g, struct buf *out)
{
    const struct store_collected *c = &g->c;
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc), *list = yyjson_mut_arr(doc);
    yyjson_mut_doc_set_root(doc, o);
    for (char *const *id = g->retired; *id; id++)
        (void)yyjson_mut_arr_add_str(doc, list, *id);
    (void)yyjson_mut_obj_add_bool(doc, o, "dry_run", v->dry);
    (void)yyjson_mut_obj_add_val(doc, o, "deleted", list);
    (void)yyjson_mut_obj_add_uint(doc, o, "packs_removed", c->packs);
    (void)yyjson_mut_obj_add_uint(doc, o, "bytes_removed", c->bytes);
    (void)yyjson_mut_obj_add_uint(doc, o, "packs_kept", c->kept);
    (void)yyjson_mut_obj_add_uint(doc, o, "bytes_kept", c->kept_bytes);
    (void)yyjson_mut_obj_add_uint(doc, o, "unfinished_left", c->young);
    if (v->repack)
        add_repacked(g, doc, o);
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

/* What nobody needs goes first: it is not moved, and makes room. */
static enum rc repack(struct store *s, const struct gc_values *v, struct gc_result *g,
                      struct err *err)
{
    struct repack_options o = {.dry = v->dry, .without = v->dry ? g->retired : NULL};
    struct store_collected again = {0};
    struct err why = ERR_INIT;
    enum rc rc = store_repack(s, &o, &g->r, err);
    if (rc || v->dry)
        return rc;
    rc = store_gc(s, false, &again, &why);
    g->late = rc == RC_UNAVAILABLE;
    if (rc && !g->late) {
        *err = why;
        return rc;
    }
    if (!g->late) {
        g->c.packs += again.packs;
        g->c.bytes += again.bytes;
        g->c.kept = again.kept;
        g->c.kept_bytes = again.kept_bytes;
        g->c.young = again.young;
    }
    return RC_OK;
}

static enum rc collect(struct store *s, const struct gc_values *v, const struct retention *rules,
                       struct gc_result *g, struct err *err)
{
    enum rc rc = store_retire(s, rules, v->dry, &g->retired, err);
    if (!rc)
        rc = v->dry ? store_gc_without(s, g->retired, &g->c, err) : store_gc(s, false, &g->c, err);
    return !rc && v->repack ? repack(s, v, g, err) : rc;
}

static int gc_main(const struct opt_command *self, int argc, char **argv)
{
    struct gc_values v = {.keep_last = NOT_GIVEN};
    struct err err = ERR_INIT;
    int first = 0;
    struct retention rules;
    struct gc_result g = {.retired = NULL};
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CLEANUP(vault_done) struct vault vault = {.keys = NULL};
    CLEANUP(store_freep) struct store *store = NULL;
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc)
        rc = parse_rules(&v, &rules, &err);
    if (!rc)
        rc = cli_open_existing_with(v.store ? v.store : v.storage, &v.keys, &vault, &store, &err);
    if (!rc && v.repack && store_is_remote(store)) /* said before anything is deleted */
        rc = store_repack(store, &(struct repack_options){.dry = true}, &g.r, &err);
    if (!rc)
        rc = collect(store, &v, &rules, &g, &err);
    if (!rc && v.json)
        print_json(&v, &g, &out);
    else if (!rc)
        print_people(&v, &g, &out);
    store_free_ids(g.retired);
    repacked_done(&g.r);
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
        "a restore is reading stays until a later gc.\n\n"
        "After many checkpoints of which each stored only what had changed, the memory of one lies "
        "in many packs, and packs hold more and more that nobody needs. --repack writes such "
        "memory into new packs, in the order in which a restore reads it, the newest checkpoint "
        "first, and then removes the old ones; `chrek inspect` tells how scattered a checkpoint "
        "is. Checkpoints and restores may go on meanwhile, and if it is ended in between every "
        "checkpoint is whole. A checkpoint that cannot be read here, or is signed and would have "
        "to be signed anew, is left as it is, and that is said. In object storage --repack is "
        "not possible.",
    .examples = "  chrek gc --dry-run\n"
                "  chrek gc --repack\n"
                "  chrek gc --keep-last 3 --keep-within 7d --per name\n",
    .opts = options,
    .run = gc_main,
};

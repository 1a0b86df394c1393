/* chrek diff: what differs between two checkpoints. */
#include "base/compiler.h"
#include "base/mem.h"
#include "base/term.h"
#include "cli/cli.h"
#include "cli/compare.h"
#include "cli/inspect.h"
#include "cli/keys.h"
#include "cli/memory_diff.h"
#include "cli/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CELL 44 /* characters of a value in the table */

struct diff_values {
    const char *store, *storage;
    bool json;
    struct cli_keys keys;
};

static const struct opt options[] = {
    CLI_STORE_OPTION(struct diff_values, store),
    CLI_STORAGE_OPTION(struct diff_values, storage),
    CLI_KEY_OPTIONS(struct diff_values, keys),
    CLI_JSON_OPTION(struct diff_values, json),
    {.name = NULL},
};

/* What differs between any two checkpoints, and says nothing. */
static const char *const skipped[] = {"id",         "path",      "created_at", "parent_id", "files",
                                      "timings_ns", "freeze_ns", "sync_ns",    "stored",    NULL};

static const char *const memory_titles[] = {"PROCESS",  "MEMORY", ">SAME",
                                            ">CHANGED", ">ADDED", ">REMOVED"};

struct report {
    struct term_table table, memory_table;
    yyjson_mut_doc *doc;
    yyjson_mut_val *list, *memory;
};

static void add_cell(struct buf *out, yyjson_val *value)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    char *json = value && !yyjson_is_str(value) ? yyjson_val_write(value, 0, NULL) : NULL;
    const char *plain = json ? json : value ? yyjson_get_str(value) : "-";
    char *copy[] = {(char *)(uintptr_t)plain, NULL};
    text_words(out, copy, CELL);
    free(json);
}

static void found(void *arg, const char *path, yyjson_val *a, yyjson_val *b)
{
    struct report *r = arg;
    CLEANUP(buf_done) struct buf left = BUF_INIT;
    CLEANUP(buf_done) struct buf right = BUF_INIT;
    add_cell(&left, a);
    add_cell(&right, b);
    term_table_row(&r->table, (const char *const[]){path, buf_str(&left), buf_str(&right)});
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(r->doc, r->list);
    text_json(r->doc, o, "path", path);
    (void)yyjson_mut_obj_add_val(r->doc, o, "a",
                                 a ? yyjson_val_mut_copy(r->doc, a) : yyjson_mut_null(r->doc));
    (void)yyjson_mut_obj_add_val(r->doc, o, "b",
                                 b ? yyjson_val_mut_copy(r->doc, b) : yyjson_mut_null(r->doc));
}

/* Everything that `chrek inspect` tells of a checkpoint. */
static enum rc load(struct store *store, const char *id, struct store_entry **out_entry,
                    yyjson_doc **out, struct err *err)
{
    CLEANUP(store_entry_freep) struct store_entry *entry = NULL;
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    enum rc rc = store_find(store, id, &entry, err);
    if (!rc)
        rc = inspect_entry_json(entry, doc, root, err);
    if (rc)
        return rc;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    json_write(doc, &text);
    rc = json_parse(id, buf_str(&text), text.len, out, err);
    if (!rc)
        *out_entry = STEAL(entry);
    return rc;
}

/* ---- memory ---- */

static void add_memory(struct report *r, const struct memory_diff_row *row)
{
    char process[16];
    struct buf cells[4] = {BUF_INIT, BUF_INIT, BUF_INIT, BUF_INIT};
    const uint64_t pages[4] = {row->same, row->changed, row->added, row->removed};
    static const char *const keys[4] = {"same_pages", "changed_pages", "added_pages",
                                        "removed_pages"};
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(r->doc, r->memory);
    (void)yyjson_mut_obj_add_uint(r->doc, o, "pid", row->pid);
    (void)yyjson_mut_obj_add_str(r->doc, o, "kind", cr_memory_name(row->kind));
    for (int i = 0; i < 4; i++) {
        (void)yyjson_mut_obj_add_uint(r->doc, o, keys[i], pages[i]);
        term_size(pages[i] * MEMORY_PAGE, &cells[i]);
    }
    (void)snprintf(process, sizeof(process), row->pid ? "%u" : "-", row->pid);
    if (row->changed || row->added || row->removed)
        term_table_row(&r->memory_table,
                       (const char *const[]){process, cr_memory_name(row->kind), buf_str(&cells[0]),
                                             buf_str(&cells[1]), buf_str(&cells[2]),
                                             buf_str(&cells[3])});
    for (int i = 0; i < 4; i++)
        buf_done(&cells[i]);
}

static enum rc compare_memory(struct store *store, struct store_entry *const entries[2],
                              struct report *r, struct err *err)
{
    CLEANUP(mem_freep) struct memory_diff_row *rows = NULL;
    size_t n = 0;
    enum rc rc = memory_diff(store, entries[0], entries[1], &rows, &n, err);
    for (size_t i = 0; !rc && i < n; i++)
        add_memory(r, &rows[i]);
    return rc;
}

static int show(const struct diff_values *v, const char *const ids[2], struct report *r)
{
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    if (v->json) {
        yyjson_mut_val *root = yyjson_mut_obj(r->doc);
        yyjson_mut_doc_set_root(r->doc, root);
        text_json(r->doc, root, "a", ids[0]);
        text_json(r->doc, root, "b", ids[1]);
        (void)yyjson_mut_obj_add_val(r->doc, root, "differences", r->list);
        (void)yyjson_mut_obj_add_val(r->doc, root, "memory", r->memory);
        json_write(r->doc, &out);
        buf_adds(&out, "\n");
        return cli_print(&out);
    }
    if (r->table.rows > 1)
        term_table_print(&r->table, &out);
    if (r->memory_table.rows > 1) {
        buf_adds(&out, out.len ? "\n" : "");
        term_table_print(&r->memory_table, &out);
    }
    if (!out.len)
        buf_addf(&out, "%s and %s do not differ\n", ids[0], ids[1]);
    return cli_print(&out);
}

static int diff_main(const struct opt_command *self, int argc, char **argv)
{
    struct diff_values v = {0};
    struct err err = ERR_INIT;
    int first = 0;
    CLEANUP(vault_done) struct vault vault = {.keys = NULL};
    CLEANUP(store_freep) struct store *store = NULL;
    CLEANUP(store_entry_freep) struct store_entry *one = NULL;
    CLEANUP(store_entry_freep) struct store_entry *two = NULL;
    CLEANUP(json_docp) yyjson_doc *a = NULL;
    CLEANUP(json_docp) yyjson_doc *b = NULL;
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc)
        rc = cli_open_existing_with(v.store ? v.store : v.storage, &v.keys, &vault, &store, &err);
    if (!rc)
        rc = load(store, argv[first], &one, &a, &err);
    if (!rc)
        rc = load(store, argv[first + 1], &two, &b, &err);
    if (rc)
        return cli_fail(&err);
    const char *ids[] = {argv[first], argv[first + 1]};
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    struct report r = {.doc = doc, .list = yyjson_mut_arr(doc), .memory = yyjson_mut_arr(doc)};
    term_table_init(&r.table, (const char *const[]){"WHAT", ids[0], ids[1]}, 3);
    term_table_init(&r.memory_table, memory_titles, ARRAY_LEN(memory_titles));
    compare_values(yyjson_doc_get_root(a), yyjson_doc_get_root(b), skipped, found, &r);
    rc = compare_memory(store, (struct store_entry *const[]){one, two}, &r, &err);
    int code = rc ? cli_fail(&err) : show(&v, ids, &r);
    term_table_done(&r.table);
    term_table_done(&r.memory_table);
    return code;
}

const struct opt_command cmd_diff = {
    .name = "diff",
    .summary = "show what differs between two checkpoints",
    .synopsis = "[OPTIONS] ID ID",
    .description =
        "Compares everything that `chrek inspect` tells of two checkpoints: command, host, "
        "processes, memory by kind, descriptors, sockets, environment, sizes. What differs between "
        "any two (ids, dates, timings) is left out. Then compares their memory page by page: what "
        "stayed the same, changed, came and went, for each process and kind of memory.",
    .examples = "  chrek diff web before-upgrade\n",
    .opts = options,
    .min_operands = 2,
    .max_operands = 2,
    .candidates = "__ids",
    .run = diff_main,
};

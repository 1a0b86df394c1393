/* Commands on stored checkpoints: ls, delete. */
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/term.h"
#include "cli/cli.h"
#include "cli/keys.h"
#include "codec/json.h"
#include "store/gc.h"

#include <stdlib.h>
#include <string.h>

/* ---- ls ---- */

struct ls_values {
    const char *store, *storage, *label, *pod;
    bool json;
    struct cli_keys keys;
};

static const struct opt ls_options[] = {
    CLI_STORE_OPTION(struct ls_values, store),
    CLI_STORAGE_OPTION(struct ls_values, storage),
    CLI_KEY_OPTIONS(struct ls_values, keys),
    {.name = "label",
     .letter = 'l',
     .kind = OPT_STRING,
     .arg = "KEY[=VALUE]",
     .offset = offsetof(struct ls_values, label),
     .help = "Only those with this label."},
    {.name = "pod",
     .kind = OPT_STRING,
     .arg = "NAME",
     .offset = offsetof(struct ls_values, pod),
     .help = "Only those of this pod, or of the box of this name."},
    CLI_JSON_OPTION(struct ls_values, json),
    {.name = NULL},
};

static bool label_matches(const struct metadata *m, const char *want)
{
    size_t n = strcspn(want, "=");
    for (size_t i = 0; i < m->n_labels; i++)
        if (strlen(m->labels[i].key) == n && memcmp(m->labels[i].key, want, n) == 0 &&
            (!want[n] || strcmp(m->labels[i].value, want + n + 1) == 0))
            return true;
    return false;
}

static bool is_wanted(const struct ls_values *v, const struct metadata *m)
{
    if (v->label && (!m || !label_matches(m, v->label)))
        return false;
    if (!v->pod)
        return true;
    return m && ((m->pod_name && strcmp(m->pod_name, v->pod) == 0) ||
                 (m->name && strcmp(m->name, v->pod) == 0));
}

static void add_row(struct term_table *t, const char *id, const struct metadata *m,
                    const struct err *why)
{
    CLEANUP(buf_done) struct buf size = BUF_INIT;
    CLEANUP(buf_done) struct buf age = BUF_INIT;
    CLEANUP(buf_done) struct buf command = BUF_INIT;
    if (m) {
        term_size(m->total_bytes, &size);
        term_age(m->created_at, &age);
        for (char **c = m->command; c && *c; c++)
            buf_addf(&command, "%s%s", c == m->command ? "" : " ", *c);
        if (command.len > 60)
            memcpy(command.data + 57, "...", 4);
        if (!command.len && m->key && !m->command)
            buf_adds(&command, "(encrypted)");
        else if (!command.len && m->image)
            buf_adds(&command, m->image);
    } else {
        buf_adds(&command, why->msg);
    }
    const char *cells[] = {id, m ? "ready" : "unusable", buf_str(&age), buf_str(&size),
                           buf_str(&command)};
    term_table_row(t, cells);
}

static void add_json(yyjson_mut_doc *doc, yyjson_mut_val *list, const char *id,
                     const struct metadata *m, const struct err *why)
{
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
    (void)yyjson_mut_obj_add_strcpy(doc, o, "id", id);
    (void)yyjson_mut_obj_add_bool(doc, o, "usable", m != NULL);
    if (!m) {
        (void)yyjson_mut_obj_add_strcpy(doc, o, "error", why->msg);
        return;
    }
    (void)yyjson_mut_obj_add_strcpy(doc, o, "created_at", m->created_at ? m->created_at : "");
    (void)yyjson_mut_obj_add_strcpy(doc, o, "source_node", m->source_node ? m->source_node : "");
    (void)yyjson_mut_obj_add_uint(doc, o, "bytes", m->total_bytes);
    (void)yyjson_mut_obj_add_uint(doc, o, "memory_bytes", m->pages_bytes);
    (void)yyjson_mut_obj_add_uint(doc, o, "generation", m->generation);
    (void)yyjson_mut_obj_add_bool(doc, o, "encrypted", m->key != NULL);
    yyjson_mut_val *command = yyjson_mut_arr(doc);
    (void)yyjson_mut_obj_add_val(doc, o, "command", command);
    for (char **c = m->command; c && *c; c++)
        (void)yyjson_mut_arr_add_strcpy(doc, command, *c);
    yyjson_mut_val *labels = yyjson_mut_obj(doc);
    (void)yyjson_mut_obj_add_val(doc, o, "labels", labels);
    for (size_t i = 0; i < m->n_labels; i++)
        (void)yyjson_mut_obj_add(labels, yyjson_mut_strcpy(doc, m->labels[i].key),
                                 yyjson_mut_strcpy(doc, m->labels[i].value));
}

static int list(const struct ls_values *v, struct store *store, char **ids)
{
    static const char *const titles[] = {"ID", "STATE", "CREATED", ">SIZE", "COMMAND"};
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *array = yyjson_mut_arr(doc);
    yyjson_mut_doc_set_root(doc, array);
    struct term_table table;
    term_table_init(&table, titles, ARRAY_LEN(titles));
    for (char **id = ids; *id; id++) {
        struct err why = ERR_INIT;
        CLEANUP(store_entry_freep) struct store_entry *e = NULL;
        enum rc rc = store_find(store, *id, &e, &why);
        const struct metadata *m = rc ? NULL : store_entry_metadata(e);
        if (rc == RC_NOT_FOUND || !is_wanted(v, m))
            continue;
        add_row(&table, *id, m, &why);
        add_json(doc, array, *id, m, &why);
    }
    if (v->json) {
        json_write(doc, &out);
        buf_adds(&out, "\n");
    } else if (table.rows > 1) {
        term_table_print(&table, &out);
    } else {
        buf_addf(&out, "No checkpoints in %s\n", store_path(store));
    }
    term_table_done(&table);
    return cli_print(&out);
}

static int ls_main(const struct opt_command *self, int argc, char **argv)
{
    struct ls_values v = {0};
    struct err err = ERR_INIT;
    int first = 0;
    char **ids = NULL;
    CLEANUP(vault_done) struct vault vault = {.keys = NULL};
    CLEANUP(store_freep) struct store *store = NULL;
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc)
        rc = cli_open_existing_with(v.store ? v.store : v.storage, &v.keys, &vault, &store, &err);
    if (!rc)
        rc = store_list(store, &ids, &err);
    if (rc)
        return cli_fail(&err);
    int code = list(&v, store, ids);
    store_free_ids(ids);
    return code;
}

const struct opt_command cmd_ls = {
    .name = "ls",
    .summary = "list the checkpoints of a store",
    .synopsis = "[OPTIONS]",
    .description =
        "Lists every checkpoint with its age and size. One that cannot be used is listed "
        "with the reason.",
    .opts = ls_options,
    .run = ls_main,
};

/* ---- delete ---- */

struct delete_values {
    const char *store, *storage;
    bool keep_packs;
};

static const struct opt delete_options[] = {
    CLI_STORE_OPTION(struct delete_values, store),
    CLI_STORAGE_OPTION(struct delete_values, storage),
    {.name = "keep-packs",
     .kind = OPT_FLAG,
     .offset = offsetof(struct delete_values, keep_packs),
     .help = "Leave the memory that only these checkpoints used to a later `chrek gc`."},
    {.name = NULL},
};

/* What only the deleted ones have used goes with them, unless a checkpoint is being made. */
static enum rc collect_after(struct store *store, struct err *err)
{
    struct store_collected c;
    enum rc rc = store_gc(store, false, &c, err);
    if (rc == RC_CORRUPT)
        return err_ctx(err, rc, "deleted, but its memory stays");
    return rc == RC_UNAVAILABLE ? RC_OK : rc;
}

static int delete_main(const struct opt_command *self, int argc, char **argv)
{
    struct delete_values v = {0};
    struct err err = ERR_INIT;
    int first = 0, code = CLI_OK;
    CLEANUP(store_freep) struct store *store = NULL;
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc)
        rc = cli_open_existing(v.store ? v.store : v.storage, &store, &err);
    if (rc)
        return cli_fail(&err);
    for (int i = first; i < argc; i++)
        if (store_delete(store, argv[i], &err) != RC_OK)
            code = cli_fail(&err);
    if (!v.keep_packs && collect_after(store, &err) != RC_OK)
        code = cli_fail(&err);
    return code;
}

const struct opt_command cmd_delete = {
    .name = "delete",
    .summary = "remove checkpoints",
    .synopsis = "[OPTIONS] ID...",
    .description =
        "Removes checkpoints, also unusable ones. A restore that is reading one goes on. Memory "
        "that no other checkpoint shares is removed with them; while a checkpoint is being made, "
        "this is left to the next `chrek delete` or `chrek gc`.",
    .opts = delete_options,
    .min_operands = 1,
    .max_operands = -1,
    .candidates = "__ids",
    .run = delete_main,
};

/* chrek inspect: what is in a checkpoint. */
#include "cli/inspect.h"

#include "base/compiler.h"
#include "cli/cli.h"
#include "cli/keys.h"

#include <stdlib.h>
#include <string.h>

struct inspect_values {
    const char *store, *storage;
    bool json;
    struct cli_keys keys;
};

static const struct opt options[] = {
    CLI_STORE_OPTION(struct inspect_values, store),
    CLI_STORAGE_OPTION(struct inspect_values, storage),
    CLI_KEY_OPTIONS(struct inspect_values, keys),
    CLI_JSON_OPTION(struct inspect_values, json),
    {.name = NULL},
};

static enum rc read_page(void *arg, uint32_t pages_id, bool lazy, uint64_t n, void *out,
                         struct err *err)
{
    return page_reader_pages(arg, pages_id | (lazy ? MEMORY_LAZY : 0), n, 1, out, err);
}

static enum rc load_images(struct store_entry *entry, struct cr_images **out, struct err *err)
{
    const struct page_reader *pages = NULL;
    enum rc rc = store_entry_fetch(entry, err);
    if (!rc)
        rc = store_entry_pages(entry, &pages, err);
    if (rc)
        return rc;
    struct cr_page_source source = {.page = read_page, .arg = (void *)(uintptr_t)pages};
    int dir = -1;
    rc = store_entry_reveal(entry, "*.img", &dir, err);
    return rc ? rc : cr_images_load(dir, pages ? &source : NULL, out, err);
}

/* NULL: there is none, or none that could be used. */
static const struct workingset *find_record(const struct store_entry *entry, struct workingset *w)
{
    return store_entry_workingset(entry, w, NULL) == RC_OK ? w : NULL;
}

enum rc inspect_entry_json(struct store_entry *entry, yyjson_mut_doc *doc, yyjson_mut_val *object,
                           struct err *err)
{
    CLEANUP(cr_images_freep) struct cr_images *images = NULL;
    enum rc rc = load_images(entry, &images, err);
    if (rc)
        return rc;
    inspect_json(store_entry_metadata(entry), store_entry_manifest(entry), store_entry_path(entry),
                 doc, object);
    inspect_images_json(images, doc, object);
    CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT;
    const struct page_reader *pages = NULL;
    rc = store_entry_pages(entry, &pages, err);
    if (!rc && pages)
        inspect_memory_json(page_reader_memory(pages), find_record(entry, &w), doc, object);
    return rc;
}

static enum rc show_json(struct store_entry *entry, struct buf *out, struct err *err)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    enum rc rc = inspect_entry_json(entry, doc, root, err);
    if (rc)
        return rc;
    json_write(doc, out);
    buf_adds(out, "\n");
    return RC_OK;
}

static enum rc show_people(struct store_entry *entry, struct buf *out, struct err *err)
{
    CLEANUP(cr_images_freep) struct cr_images *images = NULL;
    enum rc rc = load_images(entry, &images, err);
    if (rc)
        return rc;
    inspect_people(store_entry_metadata(entry), store_entry_manifest(entry),
                   store_entry_path(entry), out);
    CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT;
    const struct page_reader *pages = NULL;
    rc = store_entry_pages(entry, &pages, err);
    if (!rc && pages)
        inspect_memory_people(page_reader_memory(pages), find_record(entry, &w), out);
    inspect_images_people(images, out);
    return rc;
}

static int inspect_main(const struct opt_command *self, int argc, char **argv)
{
    struct inspect_values v = {0};
    struct err err = ERR_INIT;
    int first = 0;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CLEANUP(vault_done) struct vault vault = {.keys = NULL};
    CLEANUP(store_freep) struct store *store = NULL;
    CLEANUP(store_entry_freep) struct store_entry *entry = NULL;
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc)
        rc = cli_open_existing_with(v.store ? v.store : v.storage, &v.keys, &vault, &store, &err);
    if (!rc)
        rc = store_find(store, argv[first], &entry, &err);
    if (!rc && v.json)
        rc = show_json(entry, &out, &err);
    else if (!rc)
        rc = show_people(entry, &out, &err);
    return rc ? cli_fail(&err) : cli_print(&out);
}

const struct opt_command cmd_inspect = {
    .name = "inspect",
    .summary = "show what is in a checkpoint",
    .synopsis = "[OPTIONS] ID",
    .description =
        "Shows where a checkpoint comes from, its sizes and timings, and what it holds: the "
        "process "
        "tree, memory by kind, open files, sockets, and the environment of the first process. With "
        "--json all of it for every process.\n\n"
        "The environment of a program often holds credentials, and a checkpoint holds them too.",
    .examples = "  chrek inspect web\n",
    .opts = options,
    .min_operands = 1,
    .max_operands = 1,
    .candidates = "__ids",
    .run = inspect_main,
};

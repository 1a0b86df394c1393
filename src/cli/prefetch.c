/* chrek prefetch: checkpoints into the cache, before somebody waits for them. */
#include "base/compiler.h"
#include "base/mem.h"
#include "base/term.h"
#include "cli/cli.h"
#include "cli/keys.h"
#include "codec/json.h"
#include "engine/watch.h"

#include <string.h>

#define THREADS 8U

struct prefetch_values {
    const char *store, *storage;
    bool json, quiet;
    struct cli_keys keys;
    struct cli_cache cache;
};

static const struct opt options[] = {
    CLI_STORE_OPTION(struct prefetch_values, store),
    CLI_STORAGE_OPTION(struct prefetch_values, storage),
    CLI_CACHE_OPTIONS(struct prefetch_values, cache),
    CLI_KEY_OPTIONS(struct prefetch_values, keys),
    CLI_JSON_OPTION(struct prefetch_values, json),
    {.name = "quiet",
     .letter = 'q',
     .kind = OPT_FLAG,
     .offset = offsetof(struct prefetch_values, quiet),
     .help = "Show no progress."},
    {.name = NULL},
};

/* What a restore in mode workingset reads first, if there is a record. */
static void prefetch_record(const struct store_entry *e, uint64_t *done)
{
    CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT;
    CLEANUP(mem_freep) uint8_t *buffers = mem_alloc(2 * MEMORY_CHUNK);
    if (store_entry_workingset(e, &w, NULL) != RC_OK)
        return;
    workingset_fetch(&w);
    for (size_t i = 0; i < w.n_chunks; i++)
        if (workingset_chunk(&w, i, buffers, buffers + MEMORY_CHUNK, NULL) == RC_OK)
            *done += w.chunks[i].stored;
}

/* All of it, verified: what is read is what is cached. */
static enum rc prefetch(struct store *store, const char *id, uint64_t *done, struct err *err)
{
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    enum rc rc = store_find(store, id, &e, err);
    if (!rc && store_entry_manifest(e)) {
        rc = store_verify(e, STORE_ALL, THREADS, done, err);
        if (!rc)
            prefetch_record(e, done);
        return rc;
    }
    return rc ? rc : store_entry_fetch(e, err);
}

static int prefetch_all(const struct prefetch_values *v, struct store *store, char **ids)
{
    CLEANUP(mem_freep) char *none = NULL;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *array = yyjson_mut_arr(doc);
    struct engine engine;
    struct err err = ERR_INIT;
    int code = CLI_OK;
    yyjson_mut_doc_set_root(doc, array);
    enum rc rc = cli_engine("unused", v->quiet || v->json, &engine, &none, &err);
    if (rc)
        return cli_fail(&err);
    for (char **id = ids; *id; id++) {
        uint64_t done = 0;
        struct watch *w = watch_counter(&engine, "Fetching", &done, 0);
        rc = prefetch(store, *id, &done, &err);
        watch_stop(w);
        cli_engine_end(&engine);
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, array);
        (void)yyjson_mut_obj_add_str(doc, o, "id", *id);
        (void)yyjson_mut_obj_add_bool(doc, o, "fetched", !rc);
        (void)yyjson_mut_obj_add_uint(doc, o, "bytes", done);
        if (rc) {
            (void)yyjson_mut_obj_add_strcpy(doc, o, "error", err.msg);
            code = v->json ? cli_exit_of(rc) : cli_fail(&err);
            continue;
        }
        if (!v->json) {
            buf_addf(&out, "%s\t", *id);
            term_size(done, &out);
            buf_adds(&out, "\n");
        }
    }
    if (v->json) {
        json_write(doc, &out);
        buf_adds(&out, "\n");
    }
    int printed = cli_print(&out);
    return code ? code : printed;
}

static int prefetch_main(const struct opt_command *self, int argc, char **argv)
{
    struct prefetch_values v = {.store = NULL};
    struct err err = ERR_INIT;
    int first = 0;
    bool cached = false;
    CLEANUP(vault_done) struct vault vault = {.keys = NULL};
    CLEANUP(store_freep) struct store *store = NULL;
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc)
        rc = cli_open_cached_with(v.store ? v.store : v.storage, &v.cache, &v.keys, &vault, &store,
                                  &cached, &err);
    if (!rc && !store_is_remote(store))
        rc = err_set(&err, RC_INVALID, "%s is a directory: nothing has to be fetched from there",
                     store_path(store));
    if (!rc && !cached)
        rc = err_set(&err, RC_INVALID,
                     "there is no cache to fetch into: give --cache DIR, or set one with `chrek "
                     "configure --cache DIR`");
    return rc ? cli_fail(&err) : prefetch_all(&v, store, argv + first);
}

const struct opt_command cmd_prefetch = {
    .name = "prefetch",
    .summary = "bring checkpoints into this machine's cache",
    .synopsis = "[OPTIONS] ID...",
    .description =
        "Reads checkpoints from object storage into the cache, verified, so that restores on this "
        "machine find them there. What is in the cache already is not read again.",
    .examples = "  chrek prefetch --cache /var/cache/chrek --store s3://bucket/checkpoints web\n",
    .opts = options,
    .min_operands = 1,
    .max_operands = -1,
    .candidates = "__ids",
    .run = prefetch_main,
};

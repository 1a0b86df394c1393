/* Commands on this machine: status, configure, version. */
#include "backend/cache.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/term.h"
#include "cli/cli.h"
#include "cli/config.h"
#include "cli/text.h"
#include "codec/json.h"
#include "criu/session.h"
#include "engine/registry.h"
#include "store/quota.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- status ---- */

#define COMMAND_SHOWN 60 /* bytes of a command line, as in `chrek ls` */

struct status_values {
    const char *store, *storage, *criu;
    bool json;
};

static const struct opt status_options[] = {
    CLI_STORE_OPTION(struct status_values, store),
    CLI_STORAGE_OPTION(struct status_values, storage),
    CLI_CRIU_OPTION(struct status_values, criu),
    CLI_JSON_OPTION(struct status_values, json),
    {.name = NULL},
};

struct facts {
    char *criu;
    char version[32]; /* "" = it does not run */
    struct err criu_error;
    char *store;
    size_t n_checkpoints, n_usable;
    uint64_t bytes;
    struct registry_box *boxes;
    size_t n_boxes;
};

static void facts_done(struct facts *f)
{
    for (size_t i = 0; i < f->n_boxes; i++)
        registry_box_done(&f->boxes[i]);
    free(f->boxes);
    free(f->criu);
    free(f->store);
}

static void ask_criu(const char *asked, struct facts *f)
{
    struct cr_facts version;
    CLEANUP(cr_session_freep) struct cr_session *s = NULL;
    f->criu = mem_strdup(asked);
    enum rc rc = f->criu ? RC_OK : engine_find_criu(&f->criu, &f->criu_error);
    struct cr_launch l = {.criu = f->criu};
    if (!rc)
        rc = cr_session_open(&l, &s, &f->criu_error);
    if (!rc)
        rc = cr_version(s, clock_now() + 10 * CLOCK_S, &version, &f->criu_error);
    if (!rc)
        (void)snprintf(f->version, sizeof(f->version), "%d.%d.%d", version.major, version.minor,
                       version.sublevel);
}

static enum rc look_at_store(const struct status_values *v, struct facts *f, struct err *err)
{
    char **ids = NULL;
    CLEANUP(store_freep) struct store *store = NULL;
    CLEANUP(mem_freep) char *configured = NULL;
    const char *asked = v->store ? v->store : v->storage;
    enum rc rc = cli_open_existing(asked, &store, err);
    if (rc == RC_NOT_FOUND && (asked || config_storage(&configured, NULL) == RC_OK)) {
        f->store = mem_strdup(asked ? asked : configured);
        return RC_OK; /* nobody has saved anything there; what runs is known nevertheless */
    }
    if (!rc)
        rc = store_list(store, &ids, err);
    if (rc)
        return rc;
    f->store = mem_strdup(store_path(store));
    for (char **id = ids; *id; id++) {
        CLEANUP(store_entry_freep) struct store_entry *e = NULL;
        f->n_checkpoints++;
        if (store_find(store, *id, &e, NULL) != RC_OK)
            continue;
        f->n_usable++;
        f->bytes += store_entry_metadata(e)->total_bytes;
    }
    store_free_ids(ids);
    return RC_OK;
}

static void print_boxes(const struct facts *f, struct buf *out)
{
    static const char *const titles[] = {"NAME", ">PID", "STARTED", ">RESTORED", "COMMAND"};
    struct term_table t;
    if (!f->n_boxes) {
        buf_adds(out, "Nothing is running under chrek.\n");
        return;
    }
    term_table_init(&t, titles, ARRAY_LEN(titles));
    for (size_t i = 0; i < f->n_boxes; i++) {
        const struct registry_box *b = &f->boxes[i];
        CLEANUP(buf_done) struct buf age = BUF_INIT;
        CLEANUP(buf_done) struct buf command = BUF_INIT;
        char pid[16], generation[24];
        (void)snprintf(pid, sizeof(pid), "%d", (int)b->owner);
        (void)snprintf(generation, sizeof(generation), "%llu times",
                       (unsigned long long)b->generation);
        term_age(b->started_at, &age);
        text_words(&command, b->command, COMMAND_SHOWN);
        const char *cells[] = {b->name, pid, buf_str(&age), generation, buf_str(&command)};
        term_table_row(&t, cells);
    }
    term_table_print(&t, out);
    term_table_done(&t);
}

static void print_people(const struct facts *f, struct buf *out)
{
    buf_addf(out, "chrek  %s\n", CHREK_VERSION);
    if (f->version[0])
        buf_addf(out, "criu   %s (%s)\n", f->version, f->criu);
    else
        buf_addf(out, "criu   not usable: %s\n", f->criu_error.msg);
    buf_addf(out, "store  %s: %zu checkpoint%s", f->store, f->n_usable,
             f->n_usable == 1 ? "" : "s");
    if (f->n_usable != f->n_checkpoints)
        buf_addf(out, " and %zu unusable", f->n_checkpoints - f->n_usable);
    buf_adds(out, ", ");
    term_size(f->bytes, out);
    buf_adds(out, "\n\n");
    print_boxes(f, out);
}

static void print_json(const struct facts *f, struct buf *out)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    (void)yyjson_mut_obj_add_str(doc, o, "version", CHREK_VERSION);
    yyjson_mut_val *criu = yyjson_mut_obj(doc), *store = yyjson_mut_obj(doc);
    (void)yyjson_mut_obj_add_val(doc, o, "criu", criu);
    (void)yyjson_mut_obj_add_bool(doc, criu, "usable", f->version[0] != '\0');
    if (f->criu)
        (void)yyjson_mut_obj_add_str(doc, criu, "path", f->criu);
    if (f->version[0])
        (void)yyjson_mut_obj_add_str(doc, criu, "version", f->version);
    else
        (void)yyjson_mut_obj_add_str(doc, criu, "error", f->criu_error.msg);
    (void)yyjson_mut_obj_add_val(doc, o, "store", store);
    (void)yyjson_mut_obj_add_str(doc, store, "path", f->store);
    (void)yyjson_mut_obj_add_uint(doc, store, "checkpoints", f->n_usable);
    (void)yyjson_mut_obj_add_uint(doc, store, "unusable", f->n_checkpoints - f->n_usable);
    (void)yyjson_mut_obj_add_uint(doc, store, "bytes", f->bytes);
    yyjson_mut_val *boxes = yyjson_mut_arr(doc);
    (void)yyjson_mut_obj_add_val(doc, o, "boxes", boxes);
    for (size_t i = 0; i < f->n_boxes; i++) {
        const struct registry_box *b = &f->boxes[i];
        yyjson_mut_val *x = yyjson_mut_arr_add_obj(doc, boxes);
        (void)yyjson_mut_obj_add_str(doc, x, "name", b->name);
        (void)yyjson_mut_obj_add_sint(doc, x, "pid", b->owner);
        (void)yyjson_mut_obj_add_sint(doc, x, "init_pid", b->init);
        (void)yyjson_mut_obj_add_sint(doc, x, "pid_in_box", b->pid);
        (void)yyjson_mut_obj_add_str(doc, x, "started_at", b->started_at ? b->started_at : "");
        (void)yyjson_mut_obj_add_uint(doc, x, "generation", b->generation);
        if (b->id)
            (void)yyjson_mut_obj_add_str(doc, x, "checkpoint_id", b->id);
        yyjson_mut_val *list = yyjson_mut_arr(doc);
        (void)yyjson_mut_obj_add_val(doc, x, "command", list);
        for (char **c = b->command; c && *c; c++)
            (void)yyjson_mut_arr_add_str(doc, list, *c);
    }
    json_write(doc, out);
    buf_adds(out, "\n");
}

static int status_main(const struct opt_command *self, int argc, char **argv)
{
    struct status_values v = {0};
    struct err err = ERR_INIT;
    int first = 0;
    CLEANUP(facts_done) struct facts f = {.criu_error = ERR_INIT};
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc)
        rc = look_at_store(&v, &f, &err);
    if (!rc)
        rc = registry_list(&f.boxes, &f.n_boxes, &err);
    if (rc)
        return cli_fail(&err);
    ask_criu(v.criu, &f);
    if (v.json)
        print_json(&f, &out);
    else
        print_people(&f, &out);
    return cli_print(&out);
}

const struct opt_command cmd_status = {
    .name = "status",
    .summary = "show what runs, the store, and CRIU",
    .synopsis = "[OPTIONS]",
    .description =
        "Shows the programs that run under chrek, how full the store is, and which CRIU "
        "is used. A signal to a program's PID, as it is shown here, reaches the program.",
    .opts = status_options,
    .run = status_main,
};

/* ---- configure ---- */

#define NO_QUOTA_GIVEN UINT64_MAX

struct configure_values {
    const char *storage, *cache;
    uint64_t quota, cache_size;
};

static const struct opt configure_options[] = {
    {.name = "storage",
     .kind = OPT_STRING,
     .arg = "URL",
     .offset = offsetof(struct configure_values, storage),
     .help = "Where checkpoints are unless --store says otherwise: an absolute path, or an URL as "
             "for --store."},
    {.name = "quota",
     .kind = OPT_SIZE,
     .arg = "SIZE",
     .offset = offsetof(struct configure_values, quota),
     .help =
         "How much the storage in use (--storage, else CHREK_STORE, else what is configured) may "
         "hold, for everybody who uses it; 0 = as much as there is. A "
         "checkpoint that would exceed it fails."},
    {.name = "cache",
     .kind = OPT_STRING,
     .arg = "DIR",
     .offset = offsetof(struct configure_values, cache),
     .help = "Where run, restore and prefetch keep what they read of object storage: an absolute "
             "path; empty for nowhere."},
    {.name = "cache-size",
     .kind = OPT_SIZE,
     .arg = "SIZE",
     .offset = offsetof(struct configure_values, cache_size),
     .help = "How much the cache may hold. Default: 10G."},
    {.name = NULL},
};

static enum rc add_quota(struct store *store, struct buf *out, struct err *err)
{
    uint64_t quota = 0, used = 0;
    enum rc rc = store_quota(store, &quota, err);
    if (rc || !quota)
        return rc;
    rc = store_used(store, &used, err);
    if (rc)
        return rc;
    buf_adds(out, "quota    ");
    term_size(quota, out);
    buf_adds(out, ", used ");
    term_size(used, out);
    buf_adds(out, "\n");
    return RC_OK;
}

/* Set what is to be set, and show what is. */
static enum rc configure_cache(const struct configure_values *v, struct buf *out, struct err *err)
{
    CLEANUP(mem_freep) char *dir = NULL;
    uint64_t bytes = 0;
    if (v->cache && *v->cache && *v->cache != '/')
        return err_set(err, RC_INVALID, "--cache '%.128s' must be an absolute path", v->cache);
    if (v->cache_size && v->cache_size < CACHE_MIN)
        return err_set(err, RC_INVALID, "--cache-size: a cache has at least %ju MiB",
                       (uintmax_t)(CACHE_MIN >> 20));
    enum rc rc = v->cache || v->cache_size ? config_set_cache(v->cache, v->cache_size, err) : RC_OK;
    if (!rc)
        rc = config_cache(&dir, &bytes, err);
    if (rc || !dir)
        return rc;
    buf_addf(out, "cache    %s, up to ", dir);
    term_size(bytes, out);
    buf_adds(out, "\n");
    return RC_OK;
}

static const char *environment_store(void)
{
    const char *url = getenv("CHREK_STORE");
    return url && *url ? url : NULL;
}

/* Whose quota is set, or shown: the store that every command uses.  NULL: there is none to show,
 * since it is object storage, or a directory that nobody has made yet. */
static const char *store_in_use(const struct configure_values *v, const char *configured)
{
    const char *url = environment_store() ? environment_store() : configured;
    const char *dir = url ? store_directory(url) : NULL;
    if (v->quota != NO_QUOTA_GIVEN)
        return url;
    return dir && access(dir, R_OK | X_OK) == 0 ? url : NULL;
}

static int configure_main(const struct opt_command *self, int argc, char **argv)
{
    struct configure_values v = {.quota = NO_QUOTA_GIVEN};
    struct err err = ERR_INIT;
    int first = 0;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CLEANUP(mem_freep) char *path = config_path();
    CLEANUP(mem_freep) char *storage = NULL;
    CLEANUP(store_freep) struct store *store = NULL;
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc && v.storage && v.storage[0] != '/' && strncmp(v.storage, "file:///", 8) != 0)
        rc = strstr(v.storage, "://")
                 ? RC_OK
                 : err_set(&err, RC_INVALID, "--storage '%.128s' must be an absolute path",
                           v.storage);
    if (!rc && v.storage)
        rc = cli_open_store(v.storage, &store, &err); /* before it is believed */
    if (!rc && v.storage)
        rc = config_set_storage(v.storage, &err);
    if (!rc)
        rc = config_storage(&storage, &err);
    const char *used = store ? NULL : store_in_use(&v, storage);
    if (!rc && used)
        rc = cli_open_store(used, &store, &err);
    if (!rc && v.quota != NO_QUOTA_GIVEN)
        rc = store_set_quota(store, v.quota, &err);
    if (!rc && store)
        rc = add_quota(store, &out, &err);
    if (!rc)
        rc = configure_cache(&v, &out, &err);
    if (rc)
        return cli_fail(&err);
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    buf_addf(&text, "storage  %s\n", storage);
    if (environment_store() && !v.storage)
        buf_addf(&text, "used     %s (CHREK_STORE)\n", environment_store());
    buf_addf(&text, "%s(%s)\n", buf_str(&out), path);
    return cli_print(&text);
}

const struct opt_command cmd_configure = {
    .name = "configure",
    .summary = "set or show the defaults",
    .synopsis = "[--storage URL] [--quota SIZE] [--cache DIR]",
    .description = "Sets the default storage, how much it may hold, and the cache that restores "
                   "use in front of object storage; without options shows what is set.",
    .examples = "  chrek configure --storage /mnt/nfs/checkpoints --quota 200G\n",
    .opts = configure_options,
    .run = configure_main,
};

/* ---- version ---- */

static const struct opt version_options[] = {{.name = NULL}};

static int version_main(const struct opt_command *self, int argc, char **argv)
{
    struct err err = ERR_INIT;
    int first = 0, none = 0;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    if (opt_parse(self, &none, argc, argv, &first, &err) != RC_OK)
        return cli_fail(&err);
    buf_adds(&out, "chrek " CHREK_VERSION "\n");
    return cli_print(&out);
}

const struct opt_command cmd_version = {
    .name = "version",
    .summary = "show the version",
    .synopsis = "",
    .description = "Shows the version of chrek.",
    .opts = version_options,
    .run = version_main,
};

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "base/term.h"
#include "cli/cli.h"
#include "cli/keys.h"
#include "codec/json.h"
#include "container/box.h"
#include "container/proc_tree.h"
#include "engine/appdir.h"
#include "engine/registry.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct checkpoint_values {
    const char *id, *store, *storage, *criu, *format, *compression;
    uint64_t timeout, ghost_limit, keep_limit;
    bool stop, early, leave_running, incremental, replace, tcp_established, skip_in_flight, json,
        quiet;
    struct cli_keys keys;
    struct opt_list labels;
};

static const struct opt options[] = {
    {.name = "id",
     .kind = OPT_STRING,
     .arg = "ID",
     .offset = offsetof(struct checkpoint_values, id),
     .help = "Name of the checkpoint. Default: of a box its own checkpoint's, of a process its "
             "program's name and the time."},
    CLI_STORE_OPTION(struct checkpoint_values, store),
    CLI_STORAGE_OPTION(struct checkpoint_values, storage),
    {.name = "stop",
     .kind = OPT_FLAG,
     .offset = offsetof(struct checkpoint_values, stop),
     .help = "End the processes once the checkpoint is safe."},
    {.name = "early",
     .kind = OPT_FLAG,
     .offset = offsetof(struct checkpoint_values, early),
     .help = "With --stop: end the processes as soon as their memory has been copied, before it is "
             "stored, so that GPU, ports and files are free sooner. If storing then fails, the "
             "program is lost. Takes up to a quarter of the free memory."},
    {.name = "leave-running",
     .kind = OPT_FLAG,
     .offset = offsetof(struct checkpoint_values, leave_running),
     .help = "Let the processes go on; this is the default."},
    {.name = "incremental",
     .kind = OPT_FLAG,
     .offset = offsetof(struct checkpoint_values, incremental),
     .help = "Read memory while the program runs, and let it stand still only for what it has "
             "written meanwhile. The checkpoint is as whole as any other."},
    {.name = "replace",
     .kind = OPT_FLAG,
     .offset = offsetof(struct checkpoint_values, replace),
     .help = "Replace a checkpoint of the same name."},
    {.name = "tcp-established",
     .kind = OPT_FLAG,
     .offset = offsetof(struct checkpoint_values, tcp_established),
     .help = "Keep TCP connections to the outside in the checkpoint."},
    {.name = "skip-in-flight",
     .kind = OPT_FLAG,
     .offset = offsetof(struct checkpoint_values, skip_in_flight),
     .help = "Drop TCP connections that are just being opened."},
    {.name = "label",
     .letter = 'l',
     .kind = OPT_LIST,
     .arg = "KEY=VALUE",
     .offset = offsetof(struct checkpoint_values, labels),
     .help = "A label; may be given more than once."},
    CLI_FORMAT_OPTIONS(struct checkpoint_values, format, compression),
    CLI_KEY_OPTIONS(struct checkpoint_values, keys),
    CLI_SIGN_OPTION(struct checkpoint_values, keys),
    CLI_GHOST_LIMIT_OPTION(struct checkpoint_values, ghost_limit),
    CLI_KEEP_LIMIT_OPTION(struct checkpoint_values, keep_limit),
    {.name = "timeout",
     .kind = OPT_DURATION,
     .arg = "TIME",
     .offset = offsetof(struct checkpoint_values, timeout),
     .help = "Bound on all of it. "
             "Default: 30m."},
    CLI_CRIU_OPTION(struct checkpoint_values, criu),
    CLI_JSON_OPTION(struct checkpoint_values, json),
    {.name = "quiet",
     .letter = 'q',
     .kind = OPT_FLAG,
     .offset = offsetof(struct checkpoint_values, quiet),
     .help = "Show no progress."},
    {.name = NULL},
};

/* What is to be checkpointed, found by PID or by a box's name. */
struct target {
    pid_t pid;
    struct registry_box box; /* name NULL: no box */
    char *id;
};

static void target_done(struct target *t)
{
    registry_box_done(&t->box);
    free(t->id);
}

/* An id for a process that was given none: its name and the time. */
static enum rc make_id(pid_t pid, char **out, struct err *err)
{
    struct proc_facts f;
    char now[CLOCK_RFC3339_LEN];
    enum rc rc = proc_facts_read(pid, &f, err);
    if (rc)
        return rc;
    clock_rfc3339(now);
    for (char *p = f.comm; *p; p++)
        if (*p == '/' || *p == '\\' || *p == ' ' || *p == '.')
            *p = '_';
    *out = mem_asprintf("%s-%.4s%.2s%.2s-%.2s%.2s%.2s", f.comm, now, now + 5, now + 8, now + 11,
                        now + 14, now + 17);
    return RC_OK;
}

static enum rc find_target(const char *what, const char *id, struct target *t, struct err *err)
{
    enum rc rc = cli_find_process(what, &t->box, &t->pid, err);
    if (rc)
        return rc;
    if (!id && !t->box.name)
        return make_id(t->pid, &t->id, err);
    t->id = mem_strdup(id ? id : t->box.id ? t->box.id : t->box.name);
    return RC_OK;
}

/* A box's application may be waiting for its checkpoint (chrek_wait() in chrek.h). */
static void tell_application(const struct target *t, const char *failure)
{
    char path[64];
    if (!t->box.name)
        return;
    (void)snprintf(path, sizeof(path), "/proc/%d/root", (int)t->box.init);
    CLEANUP(fd_closep) int root = sys_openat(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
    if (root < 0)
        return;
    CLEANUP(fd_closep)
    int dir = sys_open_in_root(root, BOX_APP_DIR, O_RDONLY | O_DIRECTORY, 0, RESOLVE_NO_MAGICLINKS);
    if (dir >= 0)
        (void)appdir_write_outcome(dir, failure ? NULL : t->id, failure, NULL);
}

static int report(const struct checkpoint_values *v, const struct target *t,
                  const struct store *store, const struct engine_outcome *o, uint64_t ns)
{
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    if (v->json) {
        CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
        yyjson_mut_val *root = yyjson_mut_obj(doc);
        yyjson_mut_doc_set_root(doc, root);
        (void)yyjson_mut_obj_add_str(doc, root, "id", t->id);
        (void)yyjson_mut_obj_add_str(doc, root, "store", store_path(store));
        (void)yyjson_mut_obj_add_uint(doc, root, "bytes", o->total_bytes);
        (void)yyjson_mut_obj_add_uint(doc, root, "memory_bytes", o->pages_bytes);
        (void)yyjson_mut_obj_add_uint(doc, root, "freeze_ns", o->freeze_ns);
        (void)yyjson_mut_obj_add_uint(doc, root, "sync_ns", o->sync_ns);
        (void)yyjson_mut_obj_add_uint(doc, root, "total_ns", ns);
        yyjson_mut_val *steps = yyjson_mut_obj(doc);
        (void)yyjson_mut_obj_add_val(doc, root, "steps_ns", steps);
        for (size_t i = 0; i < o->timings.n; i++)
            (void)yyjson_mut_obj_add_uint(doc, steps, o->timings.step[i].name,
                                          o->timings.step[i].ns);
        json_write(doc, &out);
        buf_adds(&out, "\n");
        return cli_print(&out);
    }
    buf_addf(&out, "%s\t", t->id);
    term_size(o->total_bytes, &out);
    buf_adds(&out, " in ");
    term_duration(ns, &out);
    buf_adds(&out, ", frozen for ");
    term_duration(o->freeze_ns, &out);
    CLEANUP(mem_freep) char *location = store_location(store, t->id);
    buf_addf(&out, "\n%s\n", location ? location : store_path(store));
    return cli_print(&out);
}

/* From here on the program must end: who interrupts us now would have it twice, once in the store.
 */
static void on_stopping(void *arg)
{
    const struct target *t = arg;
    static const int signals[] = {SIGHUP, SIGINT, SIGTERM};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    for (size_t i = 0; i < ARRAY_LEN(signals); i++) /* a mask would not hold for our threads */
        (void)sigaction(signals[i], &ignore, NULL);
    if (t->box.name)
        registry_mark_stopped(t->box.name);
}

static int take(const struct checkpoint_values *v, const char *what, struct metadata_label *labels)
{
    struct err err = ERR_INIT;
    struct engine engine;
    struct engine_outcome outcome;
    CLEANUP(target_done) struct target t = {0};
    CLEANUP(mem_freep) char *criu = NULL;
    CLEANUP(cancel_done) struct cancel cancel = CANCEL_INIT;
    CLEANUP(vault_done) struct vault vault = {.keys = NULL};
    CLEANUP(store_freep) struct store *store = NULL;
    uint64_t begun = clock_now();
    const char *asked = v->store ? v->store : v->storage;
    enum rc rc = find_target(what, v->id, &t, &err);
    if (!rc)
        rc = cli_open_store_with(asked ? asked : t.box.store, &v->keys, &vault, &store, &err);
    bool plain = false;
    enum compress_codec codec = COMPRESS_LZ4;
    uint32_t ghost_limit = 0;
    if (!rc)
        cli_warn_first_encrypted(store, &vault);
    if (!rc)
        rc = cli_format(v->format, v->compression, &plain, &codec, &err);
    if (!rc)
        rc = cli_ghost_limit(v->ghost_limit, &ghost_limit, &err);
    if (!rc)
        rc = cli_engine(v->criu, v->quiet || v->json, &engine, &criu, &err);
    if (!rc)
        rc = cancel_init(&cancel, &err);
    if (rc)
        return cli_fail(&err);
    engine.cancel = &cancel;
    engine.by_signal = true;
    struct engine_checkpoint_request req = {
        .plain = plain,
        .codec = codec,
        .store = store,
        .id = t.id,
        .replace = v->replace,
        .pid = t.pid,
        .stop = v->stop,
        .early = v->early,
        .incremental = v->incremental,
        .tcp_established = v->tcp_established,
        .skip_in_flight = v->skip_in_flight,
        .ghost_limit = ghost_limit,
        .keep_limit = v->keep_limit,
        .timeout_ns = v->timeout,
        .command = t.box.command && *t.box.command ? t.box.command : NULL,
        .name = t.box.name,
        .notify = t.box.notify,
        .labels = labels,
        .n_labels = v->labels.n,
        .stopping = on_stopping,
        .stopping_arg = &t};
    rc = engine_checkpoint(&engine, &req, &outcome, &err);
    cli_engine_end(&engine);
    if (rc || !v->stop)
        tell_application(&t, rc ? err.msg : NULL);
    if (!rc)
        return report(v, &t, store, &outcome, clock_now() - begun);
    int code = cli_fail(&err);
    return rc == RC_CANCELLED && cancel.signal ? 128 + cancel.signal : code;
}

static int checkpoint_main(const struct opt_command *self, int argc, char **argv)
{
    struct checkpoint_values v = {.keep_limit = ENGINE_KEEP_ALL};
    struct err err = ERR_INIT;
    struct metadata_label *labels = NULL;
    int first = 0;
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc && v.stop && v.leave_running)
        rc = err_set(&err, RC_INVALID, "--stop and --leave-running contradict each other");
    if (!rc && v.early && !v.stop)
        rc = err_set(&err, RC_INVALID, "--early goes with --stop");
    if (!rc)
        rc = cli_labels(&v.labels, &labels, &err);
    if (rc)
        return cli_fail(&err);
    int code = take(&v, argv[first], labels);
    cli_labels_free(labels, v.labels.n);
    return code;
}

const struct opt_command cmd_checkpoint = {
    .name = "checkpoint",
    .summary = "freeze a running program and store it",
    .synopsis = "[OPTIONS] PID|NAME",
    .description =
        "Saves the process PID, or the box NAME that `chrek run` has started, with all its "
        "descendants: memory, registers, open files, sockets, pipes, timers, IPC. The program "
        "stands still while its memory is written, then goes on, or is ended with --stop.\n\n"
        "The checkpoint appears whole or not at all. If it fails, the program goes on; so it does "
        "when the command is interrupted (SIGTERM, SIGINT, SIGHUP, SIGQUIT), which then ends with "
        "128 + the signal's number.",
    .examples = "  # a box whose first checkpoint `chrek run` has made: one more, or in its place\n"
                "  chrek checkpoint --id before-upgrade web\n"
                "  chrek checkpoint --replace web\n"
                "  # any process\n"
                "  chrek checkpoint --stop --id worker 4711\n",
    .opts = options,
    .min_operands = 1,
    .max_operands = 1,
    .candidates = "__boxes",
    .run = checkpoint_main,
};

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/detach.h"
#include "cli/keys.h"
#include "codec/digest.h"
#include "codec/name.h"
#include "engine/life.h"
#include "engine/notify.h"
#include "engine/ready.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MODE_OPTIONS(type, option, mode_field, record_field)                                       \
    {.name = (option),                                                                             \
     .kind = OPT_STRING,                                                                           \
     .arg = "full|workingset|lazy|criu",                                                           \
     .offset = offsetof(type, mode_field),                                                         \
     .env = "CHREK_RESTORE_MODE",                                                                  \
     .help = "How memory is brought back: full (all of it before the program runs), workingset "   \
             "(the program runs at once, what it touched in earlier lives comes first), lazy "     \
             "(the program runs at once, what it touches comes first), or criu (of a plain "       \
             "checkpoint: as full, but read by CRIU itself, which is slower). The first restore "  \
             "in workingset or lazy records what the program touches. Default: workingset if "     \
             "there is a record, else full."},                                                     \
    {                                                                                              \
        .name = "record", .kind = OPT_DURATION, .arg = "TIME",                                     \
        .offset = offsetof(type, record_field),                                                    \
        .help =                                                                                    \
            "How long a first restore in mode workingset or lazy records what the program "        \
            "touches, if it is not ready or at rest before. Default: 5s, 20s from object storage." \
    }

/* One name for both commands, whichever was read first. */
#define MODE_ALIAS(type, option, of, field)                                                        \
    {                                                                                              \
        .name = (option), .kind = OPT_STRING, .arg = "full|workingset|lazy|criu",                  \
        .offset = offsetof(type, field), .help = "The same as --" of "."                           \
    }

#define DETACH_OPTIONS(type, detach_field, log_field, json_field)                                  \
    {.name = "detach",                                                                             \
     .letter = 'd',                                                                                \
     .kind = OPT_FLAG,                                                                             \
     .offset = offsetof(type, detach_field),                                                       \
     .help = "Go into the background once the program runs, and print the box's name. `chrek "     \
             "status` shows its PID; `kill PID` ends the program."},                               \
        {.name = "log",                                                                            \
         .kind = OPT_STRING,                                                                       \
         .arg = "FILE",                                                                            \
         .offset = offsetof(type, log_field),                                                      \
         .help = "With --detach: append the program's output to FILE; without it is dropped."},    \
    {                                                                                              \
        .name = "json", .kind = OPT_FLAG, .offset = offsetof(type, json_field),                    \
        .help = "With --detach: write JSON for machines instead of the name."                      \
    }

#define CRIU_LOG_OPTION(type, field)                                                               \
    {                                                                                              \
        .name = "criu-log-dir", .kind = OPT_STRING, .arg = "DIR", .offset = offsetof(type, field), \
        .env = "CRIU_LOG_DIR",                                                                     \
        .help = "Keep CRIU's whole log of a restore that fails there, as "                         \
                "restore-SECONDS.log. Default: it is dropped."                                     \
    }

struct run_values {
    const char *name, *id, *store, *storage, *ready, *net, *notify, *criu, *log;
    const char *format, *compression, *mode, *mode_too, *criu_log_dir;
    uint64_t ready_timeout, timeout, ghost_limit, keep_limit, record, every;
    bool stop, cold, incremental, tcp_established, skip_in_flight, no_fallback, no_tty, no_io_uring,
        quiet, detach, json;
    struct cli_keys keys;
    struct cli_cache cache;
    struct opt_list labels;
};

static const struct opt run_options[] = {
    {.name = "name",
     .letter = 'n',
     .kind = OPT_STRING,
     .arg = "NAME",
     .offset = offsetof(struct run_values, name),
     .help = "Name of the checkpoint and of the running box. Without --name and --id both are "
             "named after the command line and the working directory."},
    {.name = "id",
     .kind = OPT_STRING,
     .arg = "ID",
     .offset = offsetof(struct run_values, id),
     .help = "Name of the checkpoint, when it shall differ from the box's."},
    CLI_STORE_OPTION(struct run_values, store),
    CLI_STORAGE_OPTION(struct run_values, storage),
    CLI_CACHE_OPTIONS(struct run_values, cache),
    {.name = "ready",
     .letter = 'r',
     .kind = OPT_STRING,
     .arg = "WHEN",
     .offset = offsetof(struct run_values, ready),
     .help = "When the command is ready to be checkpointed: file:PATH (it exists; a relative PATH "
             "is taken from $CHREK_DIR), tcp:[HOST:]PORT (it accepts), http:URL or https:URL (it "
             "answers 200-399), log:REGEX (a line of output matches), after:SECONDS, exit-of:CMD "
             "(succeeds), "
             "or never. Default: after:5."},
    {.name = "ready-timeout",
     .kind = OPT_DURATION,
     .arg = "TIME",
     .offset = offsetof(struct run_values, ready_timeout),
     .help = "Stop waiting for it after this time; the command goes on. Default: 1h."},
    {.name = "stop",
     .kind = OPT_FLAG,
     .offset = offsetof(struct run_values, stop),
     .help = "End the command once its checkpoint is safe, instead of going on; the exit status is "
             "then 0, also when the checkpoint is there already. If there can be none, the command "
             "is ended with status 123."},
    {.name = "every",
     .kind = OPT_DURATION,
     .arg = "TIME",
     .offset = offsetof(struct run_values, every),
     .help = "After the first checkpoint make another one each time this has passed, in the place "
             "of the one before; also of a restored command. Goes well with --incremental."},
    {.name = "incremental",
     .kind = OPT_FLAG,
     .offset = offsetof(struct run_values, incremental),
     .help = "Read memory while the command runs, and let it stand still only for what it has "
             "written meanwhile."},
    {.name = "cold",
     .kind = OPT_FLAG,
     .offset = offsetof(struct run_values, cold),
     .help = "Start cold even if there is a checkpoint, and replace it when ready."},
    {.name = "no-fallback",
     .kind = OPT_FLAG,
     .offset = offsetof(struct run_values, no_fallback),
     .help = "Fail when there is nothing to restore or the restore fails, instead of starting "
             "cold."},
    {.name = "tcp-established",
     .kind = OPT_FLAG,
     .offset = offsetof(struct run_values, tcp_established),
     .help = "Keep TCP connections to the outside; by default they are closed."},
    {.name = "skip-in-flight",
     .kind = OPT_FLAG,
     .offset = offsetof(struct run_values, skip_in_flight),
     .help = "Drop TCP connections that are just being opened; by default the checkpoint is tried "
             "again until there are none, for as long as --ready-timeout says."},
    {.name = "net",
     .kind = OPT_STRING,
     .arg = "host|private",
     .offset = offsetof(struct run_values, net),
     .help = "Share the machine's network (default), or have a network of its own with nothing but "
             "a loopback interface. What listens there is reached from inside: nsenter -n -t "
             "$(pgrep -P PID) COMMAND, with the PID that `chrek status` shows; or by a Unix "
             "socket."},
    {.name = "notify",
     .kind = OPT_STRING,
     .arg = "HOW",
     .offset = offsetof(struct run_values, notify),
     .help = "How a restored command is told: signal:NAME, or exec:CMD, run beside it."},
    {.name = "label",
     .letter = 'l',
     .kind = OPT_LIST,
     .arg = "KEY=VALUE",
     .offset = offsetof(struct run_values, labels),
     .help = "A label of the checkpoint; may be given more than once."},
    CLI_FORMAT_OPTIONS(struct run_values, format, compression),
    CLI_KEY_OPTIONS(struct run_values, keys),
    CLI_SIGN_OPTION(struct run_values, keys),
    MODE_OPTIONS(struct run_values, "restore-mode", mode, record),
    MODE_ALIAS(struct run_values, "mode", "restore-mode", mode_too),
    CLI_GHOST_LIMIT_OPTION(struct run_values, ghost_limit),
    CLI_KEEP_LIMIT_OPTION(struct run_values, keep_limit),
    {.name = "timeout",
     .kind = OPT_DURATION,
     .arg = "TIME",
     .offset = offsetof(struct run_values, timeout),
     .help = "Bound on a checkpoint or restore. Default: 30m."},
    {.name = "no-tty",
     .kind = OPT_FLAG,
     .offset = offsetof(struct run_values, no_tty),
     .help = "Give the command pipes even when chrek runs on a terminal."},
    {.name = "no-io-uring",
     .kind = OPT_FLAG,
     .offset = offsetof(struct run_values, no_io_uring),
     .help = "Start the command as on a kernel without io_uring, whose rings cannot be "
             "checkpointed. Most programs take another way then; node is one of them."},
    DETACH_OPTIONS(struct run_values, detach, log, json),
    CLI_CRIU_OPTION(struct run_values, criu),
    CRIU_LOG_OPTION(struct run_values, criu_log_dir),
    {.name = "quiet",
     .letter = 'q',
     .kind = OPT_FLAG,
     .offset = offsetof(struct run_values, quiet),
     .help = "Say nothing when all goes well."},
    {.name = NULL},
};

/* The same command in the same directory is the same application. */
static char *default_name(char *const *argv)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(mem_freep) char *cwd = getcwd(NULL, 0);
    struct digest d;
    char hex[DIGEST_TEXT_LEN + 1];
    buf_adds(&text, cwd ? cwd : "");
    for (size_t i = 0; argv[i]; i++) {
        buf_add(&text, "", 1);
        buf_adds(&text, argv[i]);
    }
    digest_of(buf_str(&text), text.len, &d);
    digest_format(&d, hex);
    const char *slash = strrchr(argv[0], '/'), *base = slash ? slash + 1 : argv[0];
    char clean[41] = {0};
    for (size_t i = 0; base[i] && i < 40; i++) {
        bool plain = strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-",
                            base[i]) != NULL;
        clean[i] = (char)(plain && (i || base[i] != '-') ? base[i] : '_');
    }
    return mem_asprintf("%s-%.12s", clean[0] ? clean : "run", hex + 7);
}

static enum rc check(const struct run_values *v, struct err *err)
{
    struct ready *ready = NULL;
    enum rc rc = v->id || v->name ? name_check_id(v->id ? v->id : v->name, err) : RC_OK;
    if (rc)
        return rc;
    if (v->net && strcmp(v->net, "host") != 0 && strcmp(v->net, "private") != 0)
        return err_set(err, RC_INVALID, "--net '%.32s': want host or private", v->net);
    if (v->stop && v->every)
        return err_set(err, RC_INVALID, "--every and --stop contradict each other");
    if (v->notify)
        rc = notify_check(v->notify, err);
    if (!rc && strcmp(v->ready, "never") != 0)
        rc = ready_parse(v->ready, &ready, err); /* now, not when it is too late */
    ready_freep(&ready);
    return rc;
}

/* End as the command has ended: with its exit code, or by its signal. */
static int end_like(int status)
{
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    struct rlimit no_core = {0, 0};
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    sigset_t set;
    int sig = WTERMSIG(status);
    (void)setrlimit(RLIMIT_CORE, &no_core); /* a core of ours would only mislead */
    (void)sigaction(sig, &dfl, NULL);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, sig);
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
    (void)kill(getpid(), sig);
    return 128 + sig;
}

/* Interrupted before the program ran: as it would have ended itself, by and large. */
static int fail_interrupted(const struct err *err, int sig)
{
    (void)cli_fail(err);
    return 128 + sig;
}

static int fail_run(const struct err *err, bool exec_failed)
{
    if (!exec_failed) {
        (void)cli_fail(err);
        return CLI_RUN_FAILED;
    }
    struct err told = ERR_INIT;
    (void)!err_set(&told, err->rc, "%.400s; is its name right, and is it executable?", err->msg);
    (void)cli_fail(&told);
    return err->rc == RC_NOT_FOUND ? CLI_RUN_ABSENT : CLI_RUN_DENIED;
}

/* Go into the background if that was asked for; what comes after runs in the child. */
static enum rc background(bool wanted, const char *log, bool json, struct detach *d,
                          struct err *err)
{
    if (!wanted && (log || json))
        return err_set(err, RC_INVALID, "--log and --json go with --detach");
    return wanted ? detach(log, json, d, err) : RC_OK;
}

/* Before anything has begun: a wrong command line has the code that it has everywhere. */
static int fail_early(const struct err *err)
{
    return err->rc == RC_INVALID ? cli_fail(err) : fail_run(err, false);
}

static int live(const struct run_values *v, struct life_options *o)
{
    struct err err = ERR_INIT;
    struct engine engine;
    CLEANUP(mem_freep) char *criu = NULL;
    CLEANUP(vault_done) struct vault vault = {.keys = NULL};
    CLEANUP(store_freep) struct store *store = NULL;
    CLEANUP(cancel_done) struct cancel cancel = CANCEL_INIT;
    bool exec_failed = false;
    struct life_end end = {0};
    enum rc rc = cli_open_cached_with(v->store ? v->store : v->storage, &v->cache, &v->keys, &vault,
                                      &store, NULL, &err);
    if (!rc && o->argv)
        cli_warn_first_encrypted(store, &vault);
    if (!rc)
        rc = cli_engine(v->criu, v->quiet, &engine, &criu, &err);
    if (!rc)
        rc = cancel_init(&cancel, &err);
    if (rc)
        return fail_run(&err, false);
    engine.cancel = &cancel;
    engine.by_signal = true;
    o->store = store;
    rc = life_run(&engine, o, &end, &exec_failed, &err);
    if (rc == RC_CANCELLED && cancel.signal)
        return fail_interrupted(&err, cancel.signal);
    if (rc)
        return fail_run(&err, exec_failed);
    if (end.lost)
        return CLI_RUN_LOST;
    if (end.unsaved && end.status == 0)
        return CLI_RUN_UNSAVED;
    store_freep(&store); /* it may have files of ours, and a signal runs no cleanup */
    return end.stopped ? CLI_OK : end_like(end.status);
}

static int run_main(const struct opt_command *self, int argc, char **argv)
{
    struct run_values v = {
        .ready = "after:5", .ready_timeout = 3600 * CLOCK_S, .keep_limit = ENGINE_KEEP_ALL};
    struct err err = ERR_INIT;
    struct metadata_label *labels = NULL;
    int first = 0;
    bool plain = false;
    enum compress_codec codec = COMPRESS_LZ4;
    uint32_t ghost_limit = 0;
    CLEANUP(detach_done) struct detach d = {-1, -1};
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc)
        rc = check(&v, &err);
    if (!rc)
        rc = cli_format(v.format, v.compression, &plain, &codec, &err);
    if (!rc)
        rc = cli_ghost_limit(v.ghost_limit, &ghost_limit, &err);
    enum engine_mode mode = ENGINE_DEFAULT;
    if (!rc)
        rc = mode_parse(v.mode_too ? v.mode_too : v.mode, &mode, &err);
    if (!rc)
        rc = background(v.detach, v.log, v.json, &d, &err);
    if (!rc)
        rc = cli_labels(&v.labels, &labels, &err);
    if (rc)
        return fail_early(&err);
    CLEANUP(mem_freep) char *name = default_name(argv + first);
    const char *wanted = v.name ? v.name : v.id ? v.id : name;
    struct life_options o = {.id = v.id ? v.id : wanted,
                             .name = wanted,
                             .argv = argv + first,
                             .envp = environ,
                             .ready = strcmp(v.ready, "never") != 0 ? v.ready : NULL,
                             .ready_timeout_ns = v.ready_timeout,
                             .cold = v.cold,
                             .stop = v.stop,
                             .incremental = v.incremental,
                             .every_ns = v.every,
                             .no_fallback = v.no_fallback,
                             .private_net = v.net && strcmp(v.net, "private") == 0,
                             .no_tty = v.no_tty,
                             .no_io_uring = v.no_io_uring,
                             .tcp_established = v.tcp_established,
                             .skip_in_flight = v.skip_in_flight,
                             .plain = plain,
                             .codec = codec,
                             .mode = mode,
                             .record_ns = v.record,
                             .ghost_limit = ghost_limit,
                             .keep_limit = v.keep_limit,
                             .timeout_ns = v.timeout,
                             .criu_log_dir = v.criu_log_dir,
                             .notify = v.notify,
                             .labels = labels,
                             .n_labels = v.labels.n,
                             .begun = v.detach ? detach_begun : NULL,
                             .begun_arg = &d,
                             .quiet = v.quiet};
    int code = live(&v, &o);
    cli_labels_free(labels, v.labels.n);
    return code;
}

const struct opt_command cmd_run = {
    .name = "run",
    .summary = "run a command: restored if it was checkpointed before, else cold",
    .synopsis = "[OPTIONS] [--] COMMAND [ARGUMENT...]",
    .description =
        "Runs COMMAND in a box of its own (PIDs, mounts, IPC; the network is shared). The first "
        "run "
        "starts cold, is checkpointed when it is ready, and goes on. Later runs restore the "
        "checkpoint, any number of them at the same time. If a restore fails, the reason is told "
        "and COMMAND starts cold with its arguments.\n\n"
        "A restored program is as it was: with the environment, the arguments and the code that it "
        "had loaded then. --cold starts it anew, after a change of its scripts for example. The "
        "environment of now is in the file env in $CHREK_DIR.\n\n"
        "Signals, exit status, standard streams, terminal and working directory are as if COMMAND "
        "had been started directly. When COMMAND ends, every process that it left behind ends too.",
    .examples = "  # a service that is ready when its port answers\n"
                "  chrek run --name web --ready tcp:8080 -- python3 server.py\n"
                "  # from now on it starts from the checkpoint\n"
                "  chrek run --name web -- python3 server.py\n",
    .opts = run_options,
    .stop_at_operand = true,
    .min_operands = 1,
    .max_operands = -1,
    .run = run_main,
};

/* ---- restore: the same life without a command to start cold ---- */

struct restore_values {
    const char *name, *store, *storage, *notify, *criu, *log, *mode, *mode_too, *criu_log_dir;
    uint64_t timeout, record;
    bool tcp_established, quiet, detach, json;
    struct cli_keys keys;
    struct cli_cache cache;
};

static const struct opt restore_options[] = {
    {.name = "name",
     .letter = 'n',
     .kind = OPT_STRING,
     .arg = "NAME",
     .offset = offsetof(struct restore_values, name),
     .help = "Name of the running box. Default: the checkpoint's id."},
    CLI_STORE_OPTION(struct restore_values, store),
    CLI_STORAGE_OPTION(struct restore_values, storage),
    CLI_CACHE_OPTIONS(struct restore_values, cache),
    CLI_KEY_OPTIONS(struct restore_values, keys),
    {.name = "tcp-established",
     .kind = OPT_FLAG,
     .offset = offsetof(struct restore_values, tcp_established),
     .help = "Restore TCP connections to the outside, if the checkpoint has kept them."},
    MODE_OPTIONS(struct restore_values, "mode", mode, record),
    MODE_ALIAS(struct restore_values, "restore-mode", "mode", mode_too),
    {.name = "timeout",
     .kind = OPT_DURATION,
     .arg = "TIME",
     .offset = offsetof(struct restore_values, timeout),
     .help = "Bound on the restore. Default: 30m."},
    {.name = "notify",
     .kind = OPT_STRING,
     .arg = "HOW",
     .offset = offsetof(struct restore_values, notify),
     .help =
         "How the program is told that it lives again: signal:NAME, or exec:CMD, run beside it. "
         "Default: as it was said when the checkpoint was made."},
    DETACH_OPTIONS(struct restore_values, detach, log, json),
    CLI_CRIU_OPTION(struct restore_values, criu),
    CRIU_LOG_OPTION(struct restore_values, criu_log_dir),
    {.name = "quiet",
     .letter = 'q',
     .kind = OPT_FLAG,
     .offset = offsetof(struct restore_values, quiet),
     .help = "Show no progress."},
    {.name = NULL},
};

static int restore_main(const struct opt_command *self, int argc, char **argv)
{
    struct restore_values v = {0};
    struct err err = ERR_INIT;
    int first = 0;
    CLEANUP(detach_done) struct detach d = {-1, -1};
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    enum engine_mode mode = ENGINE_DEFAULT;
    if (!rc)
        rc = name_check_id(argv[first], &err);
    if (!rc && v.notify)
        rc = notify_check(v.notify, &err);
    if (!rc)
        rc = mode_parse(v.mode_too ? v.mode_too : v.mode, &mode, &err);
    if (!rc)
        rc = background(v.detach, v.log, v.json, &d, &err);
    if (rc)
        return fail_early(&err);
    struct run_values run = {.store = v.store,
                             .storage = v.storage,
                             .cache = v.cache,
                             .criu = v.criu,
                             .quiet = v.quiet,
                             .keys = v.keys};
    struct life_options o = {.id = argv[first],
                             .keep_limit = ENGINE_KEEP_ALL,
                             .name = v.name ? v.name : argv[first],
                             .envp = environ,
                             .no_fallback = true,
                             .tcp_established = v.tcp_established,
                             .mode = mode,
                             .record_ns = v.record,
                             .timeout_ns = v.timeout,
                             .criu_log_dir = v.criu_log_dir,
                             .notify = v.notify,
                             .begun = v.detach ? detach_begun : NULL,
                             .begun_arg = &d,
                             .quiet = v.quiet};
    return live(&run, &o);
}

const struct opt_command cmd_restore = {
    .name = "restore",
    .summary = "bring a checkpoint back to life",
    .synopsis = "[OPTIONS] ID",
    .description =
        "Restores the checkpoint ID in a box of its own and stays with it: standard streams, "
        "signals, terminal and exit status are those of the restored program. Every byte of the "
        "checkpoint is verified before the program runs.",
    .examples = "  chrek restore web\n"
                "  # in the background; `chrek status` shows it\n"
                "  chrek restore --detach --log /var/log/web.log web\n",
    .opts = restore_options,
    .min_operands = 1,
    .max_operands = 1,
    .candidates = "__ids",
    .run = restore_main,
};

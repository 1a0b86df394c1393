/* chrek bench: how soon a user's own application is there, cold and restored.
 *
 * Everything is done by this program's own other commands, as a user would, in a store of its own
 * that is removed afterwards. */
#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "base/term.h"
#include "cli/cli.h"
#include "codec/json.h"
#include "container/box.h"
#include "engine/ready.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RUNS_MAX 100
#define ARGUMENTS 24 /* of a command of ours, but for the user's */
#define END_NS (30 * CLOCK_S)

struct bench_values {
    const char *ready, *dir, *criu;
    uint64_t runs, ready_timeout;
    bool no_io_uring, json;
};

static const struct opt options[] = {
    {.name = "ready",
     .letter = 'r',
     .kind = OPT_STRING,
     .arg = "WHEN",
     .offset = offsetof(struct bench_values, ready),
     .help = "When COMMAND is ready, as for `chrek run`. tcp:, http: and exit-of: are also what a "
             "restored program is asked; the others can be seen only in a cold start."},
    {.name = "runs",
     .kind = OPT_U64,
     .arg = "N",
     .offset = offsetof(struct bench_values, runs),
     .help = "How often each is measured; medians are shown. Default: 5."},
    {.name = "ready-timeout",
     .kind = OPT_DURATION,
     .arg = "TIME",
     .offset = offsetof(struct bench_values, ready_timeout),
     .help = "Give up when COMMAND, cold or restored, is not ready after this time. Default: 5m."},
    {.name = "dir",
     .kind = OPT_STRING,
     .arg = "DIR",
     .offset = offsetof(struct bench_values, dir),
     .env = "TMPDIR",
     .help = "Where the checkpoints of the measurement lie meanwhile; its file system is part of "
             "what is measured. Default: /tmp."},
    {.name = "no-io-uring",
     .kind = OPT_FLAG,
     .offset = offsetof(struct bench_values, no_io_uring),
     .help = "Start COMMAND without io_uring, as for `chrek run`."},
    CLI_CRIU_OPTION(struct bench_values, criu),
    CLI_JSON_OPTION(struct bench_values, json),
    {.name = NULL},
};

/* The ways to start, in the order in which they are measured. */
enum way { WAY_COLD, WAY_PLAIN, WAY_FULL, WAY_LAZY, WAY_WORKINGSET, WAYS };

static const struct {
    const char *name, *mode, *id;
} ways[WAYS] = {
    [WAY_COLD] = {"cold start", NULL, NULL},
    [WAY_PLAIN] = {"plain CRIU", "criu", "plain"}, /* its own format, read by CRIU itself */
    [WAY_FULL] = {"full", "full", "packed"},
    [WAY_LAZY] = {"lazy", "lazy", "packed"},
    [WAY_WORKINGSET] = {"workingset", "workingset", "packed"},
};

struct times {
    uint64_t running[RUNS_MAX], ready[RUNS_MAX];
    size_t n;
    bool has_ready;
};

struct saved {
    uint64_t bytes, memory, freeze_ns, total_ns;
};

struct bench {
    const struct bench_values *values;
    char *const *command;
    char self[4096], dir[4096], log[4096 + 8], name[64]; /* "" until they are known */
    struct times times[WAYS];
    struct saved plain, packed;
};

/* ---- our own commands ---- */

/* Run one to its end; what it prints is the caller's. */
static enum rc run_self(const struct bench *b, const char *const *argv, struct buf *out,
                        struct err *err)
{
    char *args[ARGUMENTS + 1] = {(char *)(uintptr_t)b->self};
    size_t n = 1;
    int p[2], status = 0;
    for (; argv[n - 1] && n < ARGUMENTS; n++)
        args[n] = (char *)(uintptr_t)argv[n - 1];
    CLEANUP(mem_freep) char **all = NULL;
    size_t extra = 0;
    while (b->command[extra])
        extra++;
    all = mem_zalloc((n + extra + 2) * sizeof(*all));
    memcpy(all, args, n * sizeof(*all));
    if (strcmp(argv[0], "run") == 0)
        memcpy(all + n, b->command, extra * sizeof(*all));
    if (pipe2(p, O_CLOEXEC) < 0)
        return err_sys(err, "make a pipe");
    CLEANUP(fd_closep) int from = p[0];
    pid_t pid = fork();
    if (pid == 0) {
        if (dup2(p[1], STDOUT_FILENO) >= 0)
            (void)execv(b->self, all);
        _exit(127);
    }
    (void)close(p[1]);
    if (pid < 0)
        return err_sys(err, "fork");
    char text[4096];
    for (ssize_t got; (got = read(from, text, sizeof(text))) > 0 || (got < 0 && errno == EINTR);)
        if (got > 0)
            buf_add(out, text, (size_t)got);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return err_set(err, RC_IO, "`chrek %s` has failed; what it said is above", argv[0]);
    return RC_OK;
}

static enum rc save(const struct bench *b, const char *id, const char *format, struct saved *out,
                    struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    const char *const argv[] = {"checkpoint", "--id", id,       "--store", b->dir,
                                "--format",   format, "--json", b->name,   NULL};
    enum rc rc = run_self(b, argv, &text, err);
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    if (!rc)
        rc = json_parse("the report of the checkpoint", buf_str(&text), text.len, &doc, err);
    if (rc)
        return rc;
    yyjson_val *root = yyjson_doc_get_root(doc);
    *out = (struct saved){.bytes = json_u64(root, "bytes", 0),
                          .memory = json_u64(root, "memory_bytes", 0),
                          .freeze_ns = json_u64(root, "freeze_ns", 0),
                          .total_ns = json_u64(root, "total_ns", 0)};
    return RC_OK;
}

/* ---- one start ---- */

static void pause_briefly(void)
{
    struct timespec t = {0, 1000000};
    (void)nanosleep(&t, NULL);
}

static enum rc end_box(const struct bench *b, struct err *err)
{
    uint64_t deadline = clock_now() + END_NS;
    for (;;) {
        struct registry_box box = {0};
        enum rc rc = registry_find(b->name, &box, NULL);
        if (rc == RC_NOT_FOUND)
            return RC_OK;
        if (!rc && box.init > 0)
            (void)kill(box.init, SIGKILL); /* and all of the box with it */
        registry_box_done(&box);
        if (clock_now() > deadline)
            return err_set(err, RC_TIMEOUT, "the box '%s' does not end", b->name);
        pause_briefly();
    }
}

/* Give what the program has written since to a condition that looks at its output. */
static void feed(struct ready *r, int log)
{
    char text[4096];
    for (ssize_t n; (n = read(log, text, sizeof(text))) > 0;)
        ready_output(r, STDOUT_FILENO, text, (size_t)n);
}

static enum rc wait_ready(const struct bench *b, pid_t init, uint64_t begun, struct err *err)
{
    char path[64];
    struct ready *r = NULL;
    (void)snprintf(path, sizeof(path), "/proc/%d/root" BOX_APP_DIR, (int)init);
    CLEANUP(fd_closep) int appdir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    CLEANUP(fd_closep) int log = sys_openat(AT_FDCWD, b->log, O_RDONLY, 0);
    enum rc rc = ready_parse(b->values->ready, &r, err);
    if (rc)
        return rc;
    ready_place(r, init, appdir, begun);
    uint64_t deadline = begun + b->values->ready_timeout;
    while (!rc && !ready_check(r)) {
        if (log >= 0)
            feed(r, log);
        if (kill(init, 0) != 0)
            rc = err_set(err, RC_NOT_FOUND,
                         "the command has ended before it was ready; see its "
                         "output with `chrek run`");
        else if (clock_now() > deadline)
            rc = err_set(err, RC_TIMEOUT, "the command did not become ready (--ready-timeout)");
        else
            pause_briefly();
    }
    ready_freep(&r);
    return rc;
}

static bool can_ask(const char *ready, enum way way)
{
    return way == WAY_COLD || strncmp(ready, "tcp:", 4) == 0 || strncmp(ready, "http:", 5) == 0 ||
           strncmp(ready, "exit-of:", 8) == 0;
}

/* Start it one way; it runs on. */
static enum rc start(struct bench *b, enum way way, bool counts, struct err *err)
{
    struct times *t = &b->times[way];
    struct registry_box box = {0};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    bool no_rings = b->values->no_io_uring;
    const char *const cold[] = {"run",
                                "--detach",
                                "--quiet",
                                "--log",
                                b->log,
                                "--name",
                                b->name,
                                "--store",
                                b->dir,
                                "--cold",
                                "--ready",
                                "never",
                                no_rings ? "--no-io-uring" : "--",
                                no_rings ? "--" : NULL,
                                NULL};
    const char *const warm[] = {"restore",
                                "--detach",
                                "--quiet",
                                "--log",
                                b->log,
                                "--name",
                                b->name,
                                "--store",
                                b->dir,
                                "--mode",
                                ways[way].mode ? ways[way].mode : "full",
                                ways[way].id,
                                NULL};
    (void)unlink(b->log);
    uint64_t begun = clock_now();
    enum rc rc = run_self(b, way == WAY_COLD ? cold : warm, &text, err);
    uint64_t running = clock_now() - begun;
    if (!rc)
        rc = registry_find(b->name, &box, err);
    if (!rc && can_ask(b->values->ready, way)) {
        rc = wait_ready(b, box.init, begun, err);
        t->has_ready = true;
    }
    registry_box_done(&box);
    if (rc)
        return err_ctx(err, rc, "%s", ways[way].name);
    if (counts) {
        t->running[t->n] = running;
        t->ready[t->n++] = clock_now() - begun;
    }
    return RC_OK;
}

static enum rc measure(struct bench *b, struct err *err)
{
    enum rc rc = RC_OK;
    for (uint64_t i = 0; !rc && i < b->values->runs; i++) {
        rc = start(b, WAY_COLD, true, err);
        if (!rc && i + 1 == b->values->runs)
            rc = save(b, ways[WAY_PLAIN].id, "plain", &b->plain, err);
        if (!rc && i + 1 == b->values->runs)
            rc = save(b, ways[WAY_FULL].id, "packed", &b->packed, err);
        if (!rc)
            rc = end_box(b, err);
    }
    if (!rc)
        rc = start(b, WAY_LAZY, false, err); /* records what the program touches */
    if (!rc)
        rc = end_box(b, err);
    /* In turn, so that what else the machine does meets all of them. */
    for (uint64_t i = 0; !rc && i < b->values->runs; i++)
        for (int way = WAY_PLAIN; !rc && way < WAYS; way++) {
            rc = start(b, (enum way)way, true, err);
            if (!rc)
                rc = end_box(b, err);
        }
    return rc;
}

/* ---- telling ---- */

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t median(const uint64_t *list, size_t n)
{
    uint64_t sorted[RUNS_MAX];
    if (n == 0)
        return 0;
    memcpy(sorted, list, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), by_size);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static void add_row(struct term_table *table, const struct bench *b, enum way way)
{
    const struct times *t = &b->times[way], *cold = &b->times[WAY_COLD];
    CLEANUP(buf_done) struct buf running = BUF_INIT;
    CLEANUP(buf_done) struct buf ready = BUF_INIT;
    CLEANUP(buf_done) struct buf ratio = BUF_INIT;
    uint64_t ready_ns = median(t->ready, t->n);
    term_duration(median(t->running, t->n), &running);
    if (t->has_ready)
        term_duration(ready_ns, &ready);
    if (t->has_ready && way != WAY_COLD && ready_ns)
        buf_addf(&ratio, "%.1fx", (double)median(cold->ready, cold->n) / (double)ready_ns);
    const char *const cells[] = {ways[way].name, buf_str(&running),
                                 t->has_ready ? buf_str(&ready) : NULL,
                                 ratio.len ? buf_str(&ratio) : NULL};
    term_table_row(table, cells);
}

static void add_saved(const struct saved *s, const char *what, struct buf *out)
{
    buf_addf(out, "%s checkpoint: ", what);
    term_size(s->memory, out);
    buf_adds(out, " of memory, ");
    term_size(s->bytes, out);
    buf_adds(out, " stored, saved in ");
    term_duration(s->total_ns, out);
    buf_adds(out, ", frozen for ");
    term_duration(s->freeze_ns, out);
    buf_adds(out, "\n");
}

static int tell(const struct bench *b)
{
    static const char *const titles[] = {"START", ">RUNNING", ">READY", ">SOONER"};
    struct term_table table;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    term_table_init(&table, titles, ARRAY_LEN(titles));
    for (int way = 0; way < WAYS; way++)
        add_row(&table, b, (enum way)way);
    term_table_print(&table, &out);
    term_table_done(&table);
    add_saved(&b->plain, "plain", &out);
    add_saved(&b->packed, "packed", &out);
    return cli_print(&out);
}

static void add_list(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *name, const uint64_t *list,
                     size_t n)
{
    yyjson_mut_val *array = yyjson_mut_arr(doc);
    for (size_t i = 0; i < n; i++)
        (void)yyjson_mut_arr_add_uint(doc, array, list[i]);
    (void)yyjson_mut_obj_add_val(doc, o, name, array);
}

static void add_saved_json(yyjson_mut_doc *doc, yyjson_mut_val *root, const char *name,
                           const struct saved *s)
{
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    (void)yyjson_mut_obj_add_uint(doc, o, "bytes", s->bytes);
    (void)yyjson_mut_obj_add_uint(doc, o, "memory_bytes", s->memory);
    (void)yyjson_mut_obj_add_uint(doc, o, "freeze_ns", s->freeze_ns);
    (void)yyjson_mut_obj_add_uint(doc, o, "total_ns", s->total_ns);
    (void)yyjson_mut_obj_add_val(doc, root, name, o);
}

static int tell_json(const struct bench *b)
{
    static const char *const names[WAYS] = {"cold", "plain_criu", "full", "lazy", "workingset"};
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc), *starts = yyjson_mut_obj(doc);
    yyjson_mut_val *saves = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    (void)yyjson_mut_obj_add_val(doc, root, "starts", starts);
    (void)yyjson_mut_obj_add_val(doc, root, "checkpoints", saves);
    for (int way = 0; way < WAYS; way++) {
        const struct times *t = &b->times[way];
        yyjson_mut_val *o = yyjson_mut_obj(doc);
        (void)yyjson_mut_obj_add_val(doc, starts, names[way], o);
        (void)yyjson_mut_obj_add_uint(doc, o, "running_ns", median(t->running, t->n));
        add_list(doc, o, "all_running_ns", t->running, t->n);
        if (!t->has_ready)
            continue;
        (void)yyjson_mut_obj_add_uint(doc, o, "ready_ns", median(t->ready, t->n));
        add_list(doc, o, "all_ready_ns", t->ready, t->n);
    }
    add_saved_json(doc, saves, "plain", &b->plain);
    add_saved_json(doc, saves, "packed", &b->packed);
    json_write(doc, &out);
    buf_adds(&out, "\n");
    return cli_print(&out);
}

/* ---- the command ---- */

static void bench_done(struct bench *b)
{
    if (b->name[0])
        (void)!end_box(b, NULL);
    if (b->dir[0])
        (void)!fs_remove_tree(AT_FDCWD, b->dir, NULL);
    if (b->log[0])
        (void)unlink(b->log);
}

static enum rc prepare(struct bench *b, struct err *err)
{
    struct ready *r = NULL;
    const struct bench_values *v = b->values;
    if (v->runs < 1 || v->runs > RUNS_MAX)
        return err_set(err, RC_INVALID, "--runs: want 1 to %d", RUNS_MAX);
    enum rc rc = ready_parse(v->ready, &r, err);
    ready_freep(&r);
    if (rc)
        return rc;
    ssize_t n = readlink("/proc/self/exe", b->self, sizeof(b->self) - 1);
    if (n < 0)
        return err_sys(err, "find our own program");
    b->self[n] = '\0';
    if (v->criu && setenv("CHREK_CRIU", v->criu, 1) < 0)
        return err_sys(err, "set CHREK_CRIU");
    char dir[4096];
    if (snprintf(dir, sizeof(dir), "%s/chrek-bench-XXXXXX", v->dir) >= (int)sizeof(dir))
        return err_set(err, RC_INVALID, "the path of --dir is too long");
    if (!mkdtemp(dir))
        return err_sys(err, "make a directory in '%s'", v->dir);
    memcpy(b->dir, dir, sizeof(dir));
    (void)snprintf(b->log, sizeof(b->log), "%s.log", dir);
    (void)snprintf(b->name, sizeof(b->name), "%s",
                   dir + strlen(dir) - strlen("chrek-bench-XXXXXX"));
    return RC_OK;
}

static int bench_main(const struct opt_command *self, int argc, char **argv)
{
    struct bench_values v = {.dir = "/tmp", .runs = 5, .ready_timeout = 300 * CLOCK_S};
    struct err err = ERR_INIT;
    CLEANUP(bench_done) struct bench b = {.values = &v};
    int first = 0;
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc && !v.ready)
        rc = err_set(&err, RC_INVALID, "--ready is needed: when is the command ready?");
    b.command = argv + first;
    if (!rc)
        rc = prepare(&b, &err);
    if (!rc)
        rc = measure(&b, &err);
    if (rc)
        return cli_fail(&err);
    return v.json ? tell_json(&b) : tell(&b);
}

const struct opt_command cmd_bench = {
    .name = "bench",
    .summary = "measure how soon a command of yours is there, cold and restored",
    .synopsis = "[OPTIONS] --ready WHEN [--] COMMAND [ARGUMENT...]",
    .description =
        "Starts COMMAND cold, checkpoints it when it is ready, and restores it in each mode and, "
        "for comparison, by CRIU's own reading of its own images; each several times, in turn. "
        "RUNNING is until the program runs, READY until it has answered as --ready says. The "
        "checkpoints lie in a directory of their own, which is removed afterwards.",
    .examples = "  chrek bench --ready http:8080/health -- python3 server.py\n",
    .opts = options,
    .stop_at_operand = true,
    .min_operands = 1,
    .max_operands = -1,
    .run = bench_main,
};

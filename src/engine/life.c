#include "engine/life.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "base/term.h"
#include "container/box.h"
#include "container/proc_tree.h"
#include "engine/appdir.h"
#include "engine/ready.h"
#include "engine/registry.h"
#include "engine/supervise.h"
#include "pager/pager.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define READY_TICK_MS 20
#define EVERY_TICK_MS 200
#define COMMAND_SHOWN 200
#define AGAIN_NS CLOCK_S /* until the next try, when what stands against a checkpoint passes */
/* How long a program that has been sent a signal to end may stand still for its checkpoint. */
#define PATIENCE_NS (10 * CLOCK_S)
#define LET_GO_NS (20 * CLOCK_S) /* for a worker that was asked to end */

struct life {
    const struct engine *engine;
    const struct life_options *o;
    struct supervisor *supervisor;
    struct box *box;
    struct registry_box record;
    int hold;            /* on the record */
    struct ready *ready; /* NULL when no checkpoint is waited for */
    uint64_t again_at;   /* when it is tried again, 0 = it is not */
    bool told;           /* that it will be */
    uint64_t started;
    int appdir;

    pid_t worker;         /* the child that makes a checkpoint, 0 = none */
    int report;           /* its report comes here */
    struct cancel cancel; /* by which it is told to let go of the program */
    uint64_t let_go_at;   /* when it will be, 0 = it is not */
    uint64_t next;        /* when the next periodic checkpoint is due, 0 = never */
    bool again;           /* the checkpoint that is being made is one of those */
    bool restored;
    bool refused; /* there is a checkpoint that could not be restored */
    bool stopped;
    bool over;           /* the command has ended */
    bool told_to_end;    /* by a signal, while a checkpoint was made */
    bool given_up;       /* with stop: there will be no checkpoint, so it was ended */
    struct pager *pager; /* brings in memory of a restored program; NULL = all is there */
};

/* What the checkpoint's worker tells. */
struct report {
    int32_t rc;
    uint64_t freeze_ns, total_ns, bytes;
    char msg[sizeof(((struct err *)0)->msg)];
};

static void warn(const struct life *l, const char *text)
{
    if (l->engine->warn)
        l->engine->warn(l->engine->arg, text);
}

/* As often as there is something to look at. */
static void set_tick(const struct life *l)
{
    bool waits = l->next || l->let_go_at;
    supervise_set_tick(l->supervisor, l->ready ? READY_TICK_MS : waits ? EVERY_TICK_MS : 0);
}

static void plan_next(struct life *l)
{
    l->next = l->o->every_ns && !l->o->stop ? clock_now() + l->o->every_ns : 0;
    set_tick(l);
}

/* ---- the checkpoint, once ready and then again ---- */

/* There will be no checkpoint.  With stop nobody wants the command for anything else. */
static void give_up(struct life *l, const char *why)
{
    const char *goes = l->over ? "has ended" : l->o->stop ? "is ended" : "goes on";
    if (l->over && l->told_to_end) /* whatever that looked like to who made it */
        why = "the command was told to end while it was made";
    CLEANUP(mem_freep) char *text = mem_asprintf("no checkpoint: %s; the command %s", why, goes);
    warn(l, text);
    if (!l->o->stop || l->over)
        return;
    l->given_up = true;
    box_kill(l->box);
}

/* With stop, a checkpoint that is there already is as good as one that was made now. */
static bool is_there(const struct life *l, struct err *err)
{
    CLEANUP(store_entry_freep) struct store_entry *entry = NULL;
    enum rc rc = store_find(l->o->store, l->o->id, &entry, err);
    if (rc || l->o->quiet)
        return !rc;
    CLEANUP(mem_freep)
    char *text = mem_asprintf("checkpoint '%s' is there already; --cold makes it anew", l->o->id);
    warn(l, text);
    return true;
}

/* Somebody else has made one meanwhile, or one that is of no use is in its place. */
static void end_like_the_other(struct life *l)
{
    struct err why = ERR_INIT;
    if (!is_there(l, &why))
        return give_up(l, why.msg);
    l->stopped = true;
    if (!l->over)
        box_kill(l->box);
}

/* It has all that we have, the box's control socket too: were it to live on without us, so would
 * the box. */
static void die_with(pid_t parent)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
}

static _Noreturn void work(struct life *l, int to)
{
    struct err err = ERR_INIT;
    struct engine_outcome outcome = {0};
    pid_t pid = 0;
    uint64_t begun = clock_now();
    /* Without progress: the terminal is the command's while it runs. */
    struct engine quiet = {.criu = l->engine->criu, .cancel = &l->cancel};
    backend_after_fork(store_backend(l->o->store));
    enum rc rc = registry_host_pid(l->record.init, l->record.pid, &pid, &err);
    struct engine_checkpoint_request req = {.store = l->o->store,
                                            .id = l->o->id,
                                            .replace = l->o->cold || l->again,
                                            .pid = pid,
                                            .stop = l->o->stop,
                                            .incremental = l->o->incremental,
                                            .tcp_established = l->o->tcp_established,
                                            .skip_in_flight = l->o->skip_in_flight,
                                            .plain = l->o->plain,
                                            .codec = l->o->codec,
                                            .ghost_limit = l->o->ghost_limit,
                                            .keep_limit = l->o->keep_limit,
                                            .timeout_ns = l->o->timeout_ns,
                                            .command = l->o->argv,
                                            .name = l->record.name,
                                            .notify = l->o->notify,
                                            .labels = l->o->labels,
                                            .n_labels = l->o->n_labels};
    if (!rc)
        rc = engine_checkpoint(&quiet, &req, &outcome, &err);
    struct report r = {.rc = (int32_t)rc,
                       .freeze_ns = outcome.freeze_ns,
                       .total_ns = clock_now() - begun,
                       .bytes = outcome.total_bytes};
    memcpy(r.msg, err.msg, sizeof(r.msg));
    (void)!write(to, &r, sizeof(r));
    _exit(0);
}

static void start_checkpoint(struct life *l)
{
    int p[2];
    l->next = 0;
    if (cancel_init(&l->cancel, NULL) != RC_OK || pipe2(p, O_CLOEXEC) < 0) {
        cancel_done(&l->cancel);
        return give_up(l, "cannot make a pipe");
    }
    backend_before_fork(store_backend(l->o->store));
    pid_t self = getpid();
    l->told_to_end = false;
    l->worker = fork();
    if (l->worker == 0) {
        die_with(self);
        work(l, p[1]);
    }
    (void)close(p[1]);
    l->report = p[0];
    if (l->worker < 0) {
        l->worker = 0;
        fd_closep(&l->report);
        cancel_done(&l->cancel);
        return give_up(l, "cannot fork");
    }
    supervise_watch(l->supervisor, l->report);
}

static void say_checkpoint(const struct life *l, const struct report *r)
{
    CLEANUP(buf_done) struct buf size = BUF_INIT;
    if (l->o->quiet || l->again)
        return;
    term_size(r->bytes, &size);
    CLEANUP(mem_freep)
    char *text =
        mem_asprintf("checkpoint '%s' saved: %s in %.2f s, frozen for %.0f ms", l->o->id,
                     buf_str(&size), (double)r->total_ns / 1e9, (double)r->freeze_ns / 1e6);
    warn(l, text);
}

/* The application may be waiting for it (chrek_wait() in chrek.h). */
static void tell_application(const struct life *l, const char *failure)
{
    if (l->appdir >= 0)
        (void)appdir_write_outcome(l->appdir, failure ? NULL : l->o->id, failure, NULL);
}

static bool is_late(const struct life *l)
{
    return l->o->ready_timeout_ns && clock_now() - l->started > l->o->ready_timeout_ns;
}

static void try_again(struct life *l, const struct report *r)
{
    CLEANUP(mem_freep) char *text = mem_asprintf("no checkpoint yet: %s", r->msg);
    if (!l->told)
        warn(l, text);
    l->told = true;
    l->again_at = clock_now() + AGAIN_NS;
    supervise_set_tick(l->supervisor, READY_TICK_MS);
}

static void end_checkpoint(struct life *l)
{
    struct report r = {.rc = RC_IO, .msg = "its worker was killed"};
    ssize_t n;
    do
        n = read(l->report, &r, sizeof(r));
    while (n < 0 && errno == EINTR);
    r.msg[sizeof(r.msg) - 1] = '\0';
    supervise_watch(l->supervisor, -1);
    fd_closep(&l->report);
    while (waitpid(l->worker, NULL, 0) < 0 && errno == EINTR)
        continue;
    l->worker = 0;
    l->let_go_at = 0;
    cancel_done(&l->cancel);
    l->stopped = l->o->stop && r.rc == RC_OK;
    if (r.rc == RC_CONFLICT && !is_late(l))
        return try_again(l, &r);
    tell_application(l, r.rc && r.rc != RC_EXISTS ? r.msg : NULL);
    if (!r.rc)
        say_checkpoint(l, &r);
    else if (r.rc != RC_EXISTS)
        give_up(l, r.msg);
    else if (l->o->stop)
        end_like_the_other(l);
    if (r.rc == RC_EXISTS && l->refused)
        warn(l, "no new checkpoint: the one that could not be restored is still there, and every "
                "run starts cold; --cold makes a new one in its place");
    l->again = true;
    plan_next(l);
}

/* ---- hooks of the supervisor ---- */

static void on_output(void *arg, int stream, const char *data, size_t len)
{
    struct life *l = arg;
    if (l->ready)
        ready_output(l->ready, stream, data, len);
}

static void on_readable(void *arg, int fd)
{
    struct life *l = arg;
    (void)fd;
    if (l->worker)
        end_checkpoint(l);
    else if ((void)pager_state(l->pager, NULL), pager_ended(l->pager))
        supervise_watch(l->supervisor, -1); /* whether all went well is asked at the end */
}

/* A restored program is ready: what it touches from now on is no part of its working set. */
static void restored_is_ready(struct life *l)
{
    ready_freep(&l->ready);
    set_tick(l);
    pager_ready(l->pager);
}

/* Memory that still comes cannot be saved: a restored program waits for its turn. */
static bool is_due(struct life *l)
{
    return l->next && clock_now() >= l->next && (!l->pager || pager_ended(l->pager));
}

/* With CRIU at work that takes until it is done; with one that hangs it would never be. */
static void on_asked_to_end(void *arg)
{
    struct life *l = arg;
    l->told_to_end = l->worker != 0;
    if (!l->worker || l->let_go_at)
        return;
    l->let_go_at = clock_now() + PATIENCE_NS;
    set_tick(l);
}

/* Asked first; then killed, as it may wait for a store that does not answer: CRIU lets go of the
 * program also then. */
static void let_go(struct life *l)
{
    bool again = cancel_asked(&l->cancel);
    l->let_go_at = again ? 0 : clock_now() + LET_GO_NS;
    if (again)
        (void)kill(l->worker, SIGKILL);
    else
        cancel_ask(&l->cancel);
}

static void on_tick(void *arg)
{
    struct life *l = arg;
    if (l->let_go_at && clock_now() >= l->let_go_at)
        let_go(l);
    if (!l->worker && is_due(l))
        return start_checkpoint(l);
    if (l->again_at) {
        if (clock_now() < l->again_at)
            return;
        l->again_at = 0;
        set_tick(l);
        return start_checkpoint(l);
    }
    if (!l->ready || l->worker)
        return;
    if (l->restored) {
        if (ready_check(l->ready))
            restored_is_ready(l);
        return;
    }
    bool met = ready_check(l->ready);
    bool late = !met && is_late(l);
    if (!met && !late)
        return;
    ready_freep(&l->ready);
    set_tick(l);
    if (!late)
        return start_checkpoint(l);
    tell_application(l, "not ready in time");
    give_up(l, "it did not become ready in time");
}

/* ---- beginning ---- */

/* `config` says what the box shares with us; what belongs to the streams is filled in here. */
static enum rc make_box(struct life *l, struct box_config config, struct err *err)
{
    struct supervise_hooks hooks = {.output = on_output,
                                    .readable = on_readable,
                                    .asked_to_end = on_asked_to_end,
                                    .tick = on_tick,
                                    .arg = l};
    enum rc rc = supervise_new(config.tty, &hooks, &l->supervisor, err);
    if (rc)
        return rc;
    config.window = supervise_window();
    config.mask = *supervise_signal_mask(l->supervisor);
    memcpy(config.stdio, supervise_app_streams(l->supervisor), sizeof(config.stdio));
    rc = box_create(&config, &l->box, err);
    if (rc)
        return rc;
    struct proc_facts f;
    rc = proc_facts_read(box_init_pid(l->box), &f, err);
    if (rc)
        return rc;
    l->record.init = f.pid;
    l->record.init_start = f.start;
    return registry_update(&l->record, err);
}

static void drop_box(struct life *l)
{
    box_freep(&l->box);
    supervise_freep(&l->supervisor);
    fd_closep(&l->appdir);
}

static void say_restored(const struct life *l, const struct store_entry *entry, uint64_t ns)
{
    if (l->o->quiet)
        return;
    CLEANUP(mem_freep)
    char *text = mem_asprintf("restored '%s' in %.2f s", store_entry_id(entry), (double)ns / 1e9);
    warn(l, text);
}

static char **copy_command(char *const *argv)
{
    size_t n = 0;
    while (argv && argv[n])
        n++;
    char **copy = mem_zalloc((n + 1) * sizeof(*copy));
    for (size_t i = 0; i < n; i++)
        copy[i] = mem_strdup(argv[i]);
    return copy;
}

/* What its checkpoint knows and nobody has said now: the next checkpoint is to know it, too. */
static void inherit(struct life *l, const struct metadata *m)
{
    l->record.generation = m->generation + 1;
    if (!l->record.notify)
        l->record.notify = mem_strdup(m->notify);
    if (*l->record.command)
        return;
    proc_free_list(l->record.command);
    l->record.command = copy_command(m->command);
}

static enum rc restore(struct life *l, struct store_entry *entry, struct err *err)
{
    const struct metadata *m = store_entry_metadata(entry);
    bool pty = false;
    for (int i = 0; i < 3; i++)
        pty = pty || m->streams[i] == METADATA_STREAM_TTY;
    l->restored = true;
    uint64_t begun = clock_now();
    struct box_config config = {.private_net = m->private_net, .host_shm = m->host_shm, .tty = pty};
    enum rc rc = make_box(l, config, err);
    if (rc)
        return rc;
    char hostname[256] = "";
    (void)gethostname(hostname, sizeof(hostname) - 1);
    struct engine_restore_request req = {.entry = entry,
                                         .box = l->box,
                                         .notify = l->o->notify,
                                         .log_level = 4,
                                         .criu_log_dir = l->o->criu_log_dir,
                                         .tcp_established = l->o->tcp_established,
                                         .mode = l->o->mode,
                                         .record_ns = l->o->record_ns,
                                         .timeout_ns = l->o->timeout_ns,
                                         .hostname = hostname,
                                         .env = l->o->envp};
    memcpy(req.streams, supervise_app_streams(l->supervisor), sizeof(req.streams));
    struct engine_outcome outcome;
    rc = engine_restore(l->engine, &req, &outcome, err);
    if (rc)
        return rc;
    if (outcome.master >= 0) {
        supervise_take_master(l->supervisor, outcome.master);
        supervise_redraw(l->supervisor);
    }
    l->pager = outcome.pager;
    if (l->pager)
        supervise_watch(l->supervisor, pager_fd(l->pager));
    l->record.pid = outcome.pid;
    inherit(l, m);
    say_restored(l, entry, clock_now() - begun);
    return RC_OK;
}

/* The application's environment: the caller's, and where its directory is. */
static char **application_env(char *const *envp)
{
    static char dir[] = APPDIR_ENV "=" BOX_APP_DIR;
    size_t n = 0, kept = 0;
    while (envp[n])
        n++;
    char **env = mem_zalloc((n + 2) * sizeof(*env));
    for (size_t i = 0; i < n; i++)
        if (strncmp(envp[i], APPDIR_ENV "=", sizeof(APPDIR_ENV)) != 0)
            env[kept++] = envp[i];
    env[kept] = dir;
    return env;
}

static enum rc write_first_identity(struct life *l, struct err *err)
{
    char hostname[256] = "";
    (void)gethostname(hostname, sizeof(hostname) - 1);
    struct appdir_identity id = {.hostname = hostname, .env = l->o->envp};
    enum rc rc = box_open_dir(l->box, BOX_APP_DIR, &l->appdir, err);
    return rc ? rc : appdir_write(l->appdir, &id, err);
}

static enum rc start_cold(struct life *l, bool *out_exec, struct err *err)
{
    bool pty = !l->o->no_tty && supervise_on_terminal();
    l->restored = false;
    struct box_config config = {
        .private_net = l->o->private_net, .no_io_uring = l->o->no_io_uring, .tty = pty};
    enum rc rc = make_box(l, config, err);
    if (!rc)
        rc = write_first_identity(l, err);
    if (rc)
        return rc;
    CLEANUP(mem_freep) char **env = application_env(l->o->envp);
    int master = -1;
    l->started = clock_now();
    rc = box_start(l->box, l->o->argv, env, &l->record.pid, &master, err);
    *out_exec = rc == RC_NOT_FOUND || rc == RC_DENIED;
    if (rc)
        return rc;
    if (master >= 0)
        supervise_take_master(l->supervisor, master);
    l->record.generation = 0;
    return RC_OK;
}

static bool is_same_command(char *const *a, char *const *b)
{
    size_t i = 0;
    while (a[i] && b[i] && strcmp(a[i], b[i]) == 0)
        i++;
    return !a[i] && !b[i];
}

/* A name goes with one command: who gives another one does not get what he asks for. */
static void warn_of_other_command(const struct life *l, const struct metadata *m)
{
    CLEANUP(buf_done) struct buf was = BUF_INIT;
    if (!l->o->argv || !m->command || !*m->command || is_same_command(l->o->argv, m->command))
        return;
    for (size_t i = 0; m->command[i] && was.len < COMMAND_SHOWN; i++)
        buf_addf(&was, " %.*s", COMMAND_SHOWN, m->command[i]);
    CLEANUP(mem_freep)
    char *text = mem_asprintf("checkpoint '%s' was made of another command, which is restored:%s; "
                              "--cold replaces it",
                              l->o->id, buf_str(&was));
    warn(l, text);
}

/* Restore if there is something to restore; *out_done tells whether the tree runs. */
static enum rc try_restore(struct life *l, bool *out_done, struct err *err)
{
    CLEANUP(store_entry_freep) struct store_entry *entry = NULL;
    struct err why = ERR_INIT;
    *out_done = false;
    if (!l->o->id || l->o->cold)
        return RC_OK;
    enum rc rc = store_find(l->o->store, l->o->id, &entry, &why);
    if (rc == RC_NOT_FOUND && l->o->argv && !l->o->no_fallback)
        return RC_OK;
    if (!rc)
        warn_of_other_command(l, store_entry_metadata(entry));
    if (!rc)
        rc = restore(l, entry, &why);
    if (!rc) {
        *out_done = true;
        return RC_OK;
    }
    drop_box(l);
    if (!l->o->argv || l->o->no_fallback || rc == RC_CANCELLED) {
        if (err)
            *err = why;
        return rc;
    }
    l->refused = true;
    CLEANUP(mem_freep) char *text = mem_asprintf("%s. Falling back to cold start", why.msg);
    warn(l, text);
    return RC_OK;
}

static enum rc begin(struct life *l, bool *out_exec, struct err *err)
{
    bool done = false;
    enum rc rc = try_restore(l, &done, err);
    if (!rc && !done)
        rc = start_cold(l, out_exec, err);
    if (rc)
        return rc;
    supervise_streams_given(l->supervisor);
    if ((!l->restored || l->pager) && l->o->id && l->o->ready) {
        rc = ready_parse(l->o->ready, &l->ready, err);
        if (rc)
            return rc;
        if (l->restored)
            l->started = clock_now();
        ready_place(l->ready, box_init_pid(l->box), l->appdir, l->started);
    }
    if (l->restored || !l->ready) {
        l->again = l->restored;
        plan_next(l);
    }
    set_tick(l);
    rc = registry_update(&l->record, err);
    if (!rc && l->o->begun)
        l->o->begun(l->o->begun_arg, &l->record);
    return rc;
}

static void describe(struct life *l)
{
    char now[CLOCK_RFC3339_LEN];
    clock_rfc3339(now);
    struct proc_facts self;
    if (proc_facts_read(getpid(), &self, NULL) == RC_OK) {
        l->record.owner = self.pid;
        l->record.owner_start = self.start;
    }
    l->record.started_at = mem_strdup(now);
    l->record.store = l->o->store ? mem_strdup(store_path(l->o->store)) : NULL;
    l->record.id = mem_strdup(l->o->id);
    l->record.notify = mem_strdup(l->o->notify);
    l->record.command = copy_command(l->o->argv);
}

/* The box is gone; whether that was because of its memory. */
static bool end_pager(struct life *l)
{
    struct err why = ERR_INIT;
    if (!l->pager || pager_end(&l->pager, &why) != PAGER_FAILED)
        return false;
    CLEANUP(mem_freep)
    char *text =
        mem_asprintf("the memory of the restored program could not be brought in, so it was "
                     "ended: %s",
                     why.msg);
    warn(l, text);
    return true;
}

/* The command has ended by itself, and no checkpoint was made. */
static void say_ended_early(const struct life *l, int status)
{
    if (l->restored || (!l->ready && !l->again_at))
        return;
    if (WIFEXITED(status) && box_left_others(l->box))
        warn(l,
             "no checkpoint: the command has ended before it was ready, and what it left behind in "
             "the background has ended with it; run the program in the foreground");
    else if (l->o->stop || !l->o->quiet)
        warn(l, "no checkpoint: the command has ended before it was ready");
}

/* How it ended, for the caller. */
static struct life_end conclude(const struct life *l, int status, bool stopped, bool lost)
{
    bool ended = l->stopped || (stopped && WIFSIGNALED(status));
    return (struct life_end){.status = l->given_up ? 0 : status,
                             .stopped = ended,
                             .unsaved = l->o->stop && !ended,
                             .lost = lost};
}

enum rc life_run(const struct engine *e, const struct life_options *o, struct life_end *out,
                 bool *out_exec, struct err *err)
{
    struct life l = {.engine = e, .o = o, .appdir = -1, .report = -1, .cancel = CANCEL_INIT};
    int status = 0;
    *out_exec = false;
    if (o->stop && o->argv && o->id && !o->cold && is_there(&l, NULL)) {
        *out = (struct life_end){.stopped = true};
        return RC_OK;
    }
    describe(&l);
    enum rc rc = registry_enter(&l.record, o->name, &l.hold, err);
    if (!rc)
        rc = begin(&l, out_exec, err);
    if (!rc)
        rc = supervise_run(l.supervisor, l.box, &status, err);
    if (rc && (l.given_up || l.stopped))
        rc = RC_OK; /* that was us */
    else if (!rc)
        say_ended_early(&l, status);
    l.over = true;
    if (l.worker)
        end_checkpoint(&l);
    bool stopped = l.record.name && registry_was_stopped(l.record.name);
    ready_freep(&l.ready);
    drop_box(&l);
    bool lost = end_pager(&l);
    if (l.record.name)
        registry_leave(l.record.name);
    registry_box_done(&l.record);
    if (rc)
        return rc;
    *out = conclude(&l, status, stopped, lost);
    return RC_OK;
}

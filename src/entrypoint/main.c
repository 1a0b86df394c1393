/* restore-entrypoint: PID 1 of a workload container that may continue from a checkpoint.
 *
 * Restores what there is to restore and stays as the tree's guard; otherwise, and after any
 * failure, becomes the container's original command.  Static: the image needs nothing of ours but
 * this file and a CRIU.
 */
#include "base/buf.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "engine/engine.h"
#include "entrypoint/app_place.h"
#include "entrypoint/ask.h"
#include "entrypoint/choose.h"
#include "entrypoint/criu_conf.h"
#include "entrypoint/criu_log.h"
#include "entrypoint/fallback.h"
#include "entrypoint/guard.h"
#include "entrypoint/log.h"
#include "entrypoint/marker.h"
#include "entrypoint/mounts.h"
#include "entrypoint/settings.h"
#include "pager/pager.h"
#include "rootfs/apply.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONTAINER_CRIU "/usr/local/sbin/criu"
#define DEBUG_PAUSE_S 300
#define ASK_EVERY_S 2U /* each time the agent looks into its store */

static void on_warning(void *arg, const char *text)
{
    (void)arg;
    log_warn(text, NULL);
}

/* The engine has verified what this reads. */
static enum rc apply_rootfs(struct store_entry *entry, struct err *err)
{
    const struct metadata *m = store_entry_metadata(entry);
    CLEANUP(fd_closep) int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int ckpt = -1;
    if (root < 0)
        return err_sys(err, "open '/'");
    enum rc rc = store_entry_reveal(entry, ROOTFS_DIFF, &ckpt, err);
    if (!rc)
        rc = store_entry_reveal(entry, "deleted*", &ckpt, err);
    if (!rc && m->has_rootfs_diff) {
        log_info("Applying root file system difference", "file", ROOTFS_DIFF, NULL);
        rc = rootfs_apply_files(ckpt, root, err);
    }
    return rc ? rc : rootfs_apply_deletions(ckpt, root, err);
}

/* CRIU's own deduplication punches every page that it has restored out of its image: the checkpoint
 * could be restored once, and never again. */
static void deduplicate(const struct settings *s, struct store_entry *entry)
{
    const struct page_reader *pages = NULL;
    if (!s->auto_dedup)
        return;
    if (store_entry_pages(entry, &pages, NULL) == RC_OK && pages)
        log_info("CRIU_AUTO_DEDUP: this checkpoint holds each page once already", NULL);
    else
        log_warn("CRIU_AUTO_DEDUP is not applied to page images that others restore from, too; "
                 "checkpoints in the packed format hold each page once",
                 NULL);
}

static enum rc find_criu(char **out, struct err *err)
{
    if (access(CONTAINER_CRIU, X_OK) != 0 || getenv("CHREK_CRIU"))
        return engine_find_criu(out, err);
    *out = mem_strdup(CONTAINER_CRIU);
    return RC_OK;
}

/* To start CRIU and ask what it is takes longer than all the rest of a cold start: so that is done
 * when there is something to restore, or to be waited for, which would be in vain. */
static bool is_worth_waiting(const struct settings *s)
{
    return s->wait && s->wait_timeout_s;
}

/* The checkpoint to restore, by a CRIU that can.
 * unusable  set where it is CRIU that cannot */
static enum rc choose(struct settings *s, const char *criu, struct store_entry **out,
                      bool *unusable, struct err *err)
{
    bool waits = is_worth_waiting(s); /* choosing counts the time down */
    enum rc rc = waits ? engine_check_criu(criu, err) : RC_OK;
    *unusable = rc != RC_OK;
    if (!rc)
        rc = choose_or_wait(s, out, err);
    if (!rc && !waits) {
        rc = engine_check_criu(criu, err);
        *unusable = rc != RC_OK;
    }
    return rc;
}

/* What changes the container; a checkpoint that is refused before has changed nothing. */
struct preparation {
    const struct settings *settings;
    struct store_entry *entry;
    struct engine_restore_request *req;
    char *conf;
    char **external;
};

static void preparation_done(struct preparation *p)
{
    free(p->conf);
    mounts_freep(&p->external);
}

static enum rc prepare(void *arg, struct err *err)
{
    struct preparation *p = arg;
    enum rc rc = apply_rootfs(p->entry, err);
    if (!rc)
        rc = fs_mkdirs(p->settings->work_dir, 0755, err);
    criu_log_forget(p->settings);
    if (!rc)
        rc = mounts_external(p->entry, &p->external, err);
    if (!rc)
        rc = criu_conf_write(p->settings, &p->conf, err);
    if (!rc)
        rc = marker_write(p->settings, err);
    if (rc)
        return rc;
    deduplicate(p->settings, p->entry);
    p->req->app_dir = app_place_make();
    p->req->config_file = p->conf;
    p->req->external = (const char *const *)p->external;
    return RC_OK;
}

static enum rc restore(const struct settings *s, const char *criu, struct store_entry *entry,
                       struct cancel *cancel, struct engine_outcome *out, struct err *err)
{
    char hostname[256] = "";
    (void)gethostname(hostname, sizeof(hostname) - 1);
    struct engine engine = {.criu = criu, .warn = on_warning, .cancel = cancel, .by_signal = true};
    struct engine_restore_request req = {.entry = entry,
                                         .prepare = prepare,
                                         .streams = {0, 1, 2},
                                         .work_dir = s->work_dir,
                                         .log_level = s->log_level,
                                         .skip_in_flight = s->skip_in_flight,
                                         .mode = s->mode,
                                         .timeout_ns = s->timeout_s ? s->timeout_s * CLOCK_S
                                                                    : ENGINE_NO_TIMEOUT,
                                         .hostname = hostname,
                                         .env = environ,
                                         .criu_log_dir = s->log_dir};
    CLEANUP(preparation_done)
    struct preparation p = {.settings = s, .entry = entry, .req = &req};
    req.prepare_arg = &p;
    enum rc rc = engine_restore(&engine, &req, out, err);
    if (!rc || p.conf) /* CRIU may have run */
        criu_log_show(s, entry, rc != RC_OK);
    return rc;
}

/* Stay with the tree to its end; its exit code. */
static int stay(struct engine_outcome *o)
{
    struct err why = ERR_INIT;
    int code = guard(o->pid, o->master);
    if (o->pager && pager_end(&o->pager, &why) == PAGER_FAILED)
        log_error(
            "The memory of the restored processes could not be brought in, so they were ended",
            "reason", why.msg, NULL);
    return code;
}

static _Noreturn void give_up(const struct settings *s, const struct err *err, int argc,
                              char **argv)
{
    log_error("Restore failed", "reason", err->msg, NULL);
    if (s->debug) {
        log_info("DEBUG is set: keeping the container for 300 s", NULL);
        guard_pause(DEBUG_PAUSE_S);
    }
    marker_remove(s);
    log_info("Falling back to cold start", "reason", err->msg, NULL);
    guard_cancel();
    fallback(s, argc, argv);
}

/* A marker that an earlier life of the container has left would tell the command that it had been
 * restored. */
static _Noreturn void start_cold(const struct settings *s, const char *msg, const struct err *why,
                                 int argc, char **argv)
{
    log_info(msg, "reason", why->msg, NULL);
    marker_remove(s);
    guard_cancel();
    fallback(s, argc, argv);
}

/* Nobody but root may look into a process that holds keys. */
static enum rc open_vault(const struct settings *s, struct vault *out, struct err *err)
{
    struct vault_options o = {.key = {s->key_file, s->key_command, s->key_timeout_ns},
                              .trust_key = s->trust_key,
                              .require = s->require_signature};
    enum rc rc = vault_open(&o, out, err);
    if (!rc && out->keys)
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    return rc;
}

static void say_restored(pid_t pid, uint64_t begun)
{
    CLEANUP(buf_done) struct buf duration = BUF_INIT;
    marker_write_pid(pid);
    buf_addf(&duration, "%.3fs", (double)(clock_now() - begun) / 1e9);
    log_info("CRIU c.Restore completed successfully", "duration", buf_str(&duration), NULL);
    log_info("=== Restore operation completed ===", NULL);
}

static bool is_anything_here(const struct settings *s)
{
    CLEANUP(store_entry_freep) struct store_entry *entry = NULL;
    return choose_checkpoint(s, &entry, NULL) != RC_NOT_FOUND;
}

/* Ask; with WAIT_FOR_CHECKPOINT again and again, until the agent has the checkpoint, there is
 * something here, or the time is up. */
static enum rc ask_or_wait(struct settings *s, pid_t *out_pid, int *out_master, struct err *err)
{
    struct err why = ERR_INIT;
    enum rc rc = ask_agent(s, out_pid, out_master, &why);
    uint64_t waited = 0;
    while (rc == RC_NOT_FOUND && s->wait && s->wait_timeout_s && !is_anything_here(s)) {
        unsigned pause =
            s->wait_timeout_s < ASK_EVERY_S ? (unsigned)s->wait_timeout_s : ASK_EVERY_S;
        if (waited % CHOOSE_SAY_EVERY_S < pause)
            log_info("Waiting for checkpoint", "reason", why.msg, NULL);
        guard_pause(pause);
        s->wait_timeout_s -= pause;
        waited += pause;
        why = (struct err)ERR_INIT;
        rc = ask_agent(s, out_pid, out_master, &why);
    }
    if (rc)
        *err = why;
    return rc;
}

/* The agent's way, where there is one: returns the exit code of what was restored, or -1 with the
 * reason why another way must be found. */
static int let_agent_restore(struct settings *s, struct err *err)
{
    pid_t pid = 0;
    int master = -1;
    uint64_t begun = clock_now();
    if (!ask_possible(s))
        return -1;
    log_info("Asking the node's agent to restore", "checkpoint", s->hash, NULL);
    enum rc rc = ask_or_wait(s, &pid, &master, err);
    if (!rc) {
        say_restored(pid, begun);
        return guard(pid, master);
    }
    log_warn("The node's agent has not restored", "reason", err->msg, NULL);
    marker_remove(s);
    return rc == RC_CONFLICT ? EXIT_FAILURE : -1; /* the kernel ends them with us */
}

int main(int argc, char **argv)
{
    struct settings s;
    struct err err = ERR_INIT, refused = ERR_INIT;
    CLEANUP(store_entry_freep) struct store_entry *entry = NULL;
    CLEANUP(mem_freep) char *criu = NULL;
    settings_read(&s);
    CLEANUP(vault_done) struct vault vault = {.keys = NULL};
    guard_begin();
    int code = let_agent_restore(&s, &refused);
    if (code >= 0)
        return code;
    enum rc rc = find_criu(&criu, &err);
    if (rc && refused.rc)
        give_up(&s, &refused, argc - 1, argv + 1);
    if (rc)
        start_cold(&s, "Nothing can be restored", &err, argc - 1, argv + 1);
    rc = open_vault(&s, &vault, &err);
    s.vault = &vault;
    bool unusable = false;
    if (!rc)
        rc = choose(&s, criu, &entry, &unusable, &err);
    if ((unusable || rc == RC_NOT_FOUND) && refused.rc)
        give_up(&s, &refused, argc - 1, argv + 1);
    if (unusable)
        start_cold(&s, "Nothing can be restored", &err, argc - 1, argv + 1);
    if (rc == RC_NOT_FOUND)
        start_cold(&s, "No checkpoint to restore", &err, argc - 1, argv + 1);
    if (rc)
        give_up(&s, &err, argc - 1, argv + 1);

    struct engine_outcome outcome = {.pager = NULL, .master = -1};
    CLEANUP(cancel_done) struct cancel cancel = CANCEL_INIT;
    uint64_t begun = clock_now();
    rc = cancel_init(&cancel, &err);
    if (rc)
        give_up(&s, &err, argc - 1, argv + 1);
    log_info("Restoring checkpoint", "path", store_entry_path(entry), NULL);
    rc = restore(&s, criu, entry, &cancel, &outcome, &err);
    if (rc == RC_CANCELLED && cancel.signal) {
        log_info("Ended by a signal before anything was restored", "reason", err.msg, NULL);
        return 128 + cancel.signal;
    }
    if (rc)
        give_up(&s, &err, argc - 1, argv + 1);
    say_restored(outcome.pid, begun);
    store_entry_freep(&entry);
    vault_done(&vault); /* the guard needs no keys */
    return stay(&outcome);
}

#include "agent/rescue.h"

#include "agent/answer.h"
#include "agent/leftover.h"
#include "agent/log.h"
#include "agent/worker.h"
#include "assist/talk.h"
#include "base/cancel.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/json.h"
#include "container/place.h"
#include "engine/container.h"
#include "engine/engine.h"
#include "engine/host.h"
#include "store/vault.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PREPARE_NS (600 * CLOCK_S) /* for the entrypoint to bring its files up to date */
#define ANSWER_NS (10 * CLOCK_S)   /* for it to say that it still wants the tree */
#define LEFTOVER_NS (60 * CLOCK_S) /* for what a killed worker has left to end */
#define LIFE_MS 1000
#define CHUNK 65536

enum { FD_CONNECTION = WORKER_FD, FD_PIDFD, FD_STREAM };

/* ---- request and answer ---- */

void rescue_format(const struct rescue *r, struct buf *out)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    (void)yyjson_mut_obj_add_str(doc, o, "store", r->store);
    (void)yyjson_mut_obj_add_str(doc, o, "id", r->id);
    if (r->criu)
        (void)yyjson_mut_obj_add_str(doc, o, "criu", r->criu);
    (void)yyjson_mut_obj_add_str(doc, o, "namespace", r->name_space);
    (void)yyjson_mut_obj_add_uint(doc, o, "timeout_ns", r->timeout_ns);
    json_write(doc, out);
}

enum rc rescue_parse(const char *text, size_t len, yyjson_doc **doc, struct rescue *out,
                     struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *d = NULL;
    enum rc rc = json_parse("the request", text, len, &d, err);
    if (rc)
        return rc;
    yyjson_val *o = yyjson_doc_get_root(d);
    struct rescue r = {.store = json_str(o, "store", NULL),
                       .id = json_str(o, "id", NULL),
                       .criu = json_str(o, "criu", NULL),
                       .name_space = json_str(o, "namespace", NULL),
                       .timeout_ns = json_u64(o, "timeout_ns", 0)};
    if (!r.store || !r.id || !r.name_space)
        return err_set(err, RC_CORRUPT, "the request names no store, id or namespace");
    *out = r;
    *doc = STEAL(d);
    return RC_OK;
}

static void format_result(enum rc rc, const struct err *err, bool told,
                          const struct rescue_result *r, struct buf *out)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = answer_new(rc, err);
    yyjson_mut_val *o = yyjson_mut_doc_get_root(doc);
    (void)yyjson_mut_obj_add_bool(doc, o, "told", told);
    (void)yyjson_mut_obj_add_uint(doc, o, "total_ns", r->total_ns);
    (void)yyjson_mut_obj_add_uint(doc, o, "memory_bytes", r->memory_bytes);
    json_write(doc, out);
}

static enum rc parse_result(const struct buf *text, struct rescue_result *out, bool *out_told,
                            struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    enum rc rc = answer_parse(text, &doc, err);
    yyjson_val *o = yyjson_doc_get_root(doc);
    *out_told = json_bool(o, "told", false); /* of a failure, too */
    if (rc)
        return rc;
    *out = (struct rescue_result){.total_ns = json_u64(o, "total_ns", 0),
                                  .memory_bytes = json_u64(o, "memory_bytes", 0)};
    return RC_OK;
}

enum rc rescue_run(const struct rescue *r, const struct rescue_fds *fds, const atomic_bool *stop,
                   struct rescue_result *out, bool *out_told, struct err *err)
{
    CLEANUP(buf_done) struct buf request = {.max = WORKER_MESSAGE_MAX};
    CLEANUP(buf_done) struct buf answer = {.max = WORKER_MESSAGE_MAX};
    const int list[] = {fds->connection, fds->pidfd, fds->streams[0], fds->streams[1],
                        fds->streams[2]};
    const struct worker job = {.command = RESCUE_COMMAND,
                               .request = &request,
                               .fds = list,
                               .n_fds = ARRAY_LEN(list),
                               .stop = stop};
    *out_told = false;
    CLEANUP(leftover_done) struct leftover before = {.pidfd = -1};
    enum rc rc = leftover_note(fds->pidfd, &before, err);
    if (rc)
        return rc;
    rescue_format(r, &request);
    rc = worker_run(&job, &answer, err);
    if (!rc)
        return parse_result(&answer, out, out_told, err);
    struct err left = ERR_INIT;
    *out_told = leftover_end(&before, clock_now() + LEFTOVER_NS, &left) != RC_OK;
    if (*out_told)
        log_error("restore not undone", "checkpoint", r->id, "error", left.msg, NULL);
    return rc;
}

/* ---- the worker: what it gives to the entrypoint ---- */

struct job {
    const struct rescue *rescue;
    struct place place;
    struct store_entry *entry;
    struct engine_restore_request *req;
    char **external;
    struct cancel cancel;
    atomic_bool done; /* no more signs of life */
    bool told;
};

/* Files of the checkpoint, one after the other, into pipes: the entrypoint gets their bytes and no
 * descriptor of them, which it could open anew. */
struct feed {
    int from[TALK_FDS_MAX], to[TALK_FDS_MAX];
    size_t n;
};

static void feed_free(struct feed *f)
{
    for (size_t i = 0; i < f->n; i++) {
        fd_closep(&f->from[i]);
        fd_closep(&f->to[i]);
    }
    free(f);
}

static void feed_freep(struct feed **f)
{
    if (*f)
        feed_free(*f);
}

static void *feed_thread(void *arg)
{
    struct feed *f = arg;
    CLEANUP(mem_freep) char *chunk = mem_alloc(CHUNK);
    for (size_t i = 0; i < f->n; i++) {
        size_t n = CHUNK;
        while (n == CHUNK && sys_read_full(f->from[i], chunk, CHUNK, &n, NULL) == RC_OK && n &&
               sys_write_all(f->to[i], chunk, n, NULL) == RC_OK)
            continue;
        fd_closep(&f->to[i]);
    }
    feed_free(f);
    return NULL;
}

/* ends  what the entrypoint gets; the caller's */
static enum rc feed_add(struct feed *f, int dir, const char *name, int *ends, struct err *err)
{
    int p[2];
    CLEANUP(fd_closep) int file = sys_openat(dir, name, O_RDONLY | O_NOFOLLOW, 0);
    if (file < 0)
        return err_sys(err, "open '%s'", name);
    if (pipe2(p, O_CLOEXEC) < 0)
        return err_sys(err, "make a pipe");
    ends[f->n] = p[0];
    f->to[f->n] = p[1];
    f->from[f->n++] = fd_steal(&file);
    return RC_OK;
}

/* The list of deleted files has two names. */
static const char *deletions(int dir)
{
    static const char *const names[] = {"deleted-files.json", "deleted.files"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (faccessat(dir, names[i], F_OK, 0) == 0)
            return names[i];
    return NULL;
}

static enum rc gather(const struct job *j, struct feed *f, int *ends, const char **out_deletions,
                      struct err *err)
{
    const struct metadata *m = store_entry_metadata(j->entry);
    int dir = -1;
    enum rc rc = feed_add(f, store_entry_fd(j->entry), METADATA_NAME, ends, err);
    if (!rc && m->has_rootfs_diff)
        rc = store_entry_reveal(j->entry, "rootfs-diff.tar", &dir, err);
    if (!rc && m->has_rootfs_diff)
        rc = feed_add(f, dir, "rootfs-diff.tar", ends, err);
    if (!rc && m->has_shm)
        rc = store_entry_reveal(j->entry, HOST_SHM_ARCHIVE, &dir, err);
    if (!rc && m->has_shm)
        rc = feed_add(f, dir, HOST_SHM_ARCHIVE, ends, err);
    if (!rc)
        rc = store_entry_reveal(j->entry, "deleted*", &dir, err);
    *out_deletions = rc ? NULL : deletions(dir);
    if (!rc && *out_deletions)
        rc = feed_add(f, dir, *out_deletions, ends, err);
    return rc;
}

static enum rc hand_over(const struct job *j, struct err *err)
{
    const struct metadata *m = store_entry_metadata(j->entry);
    CLEANUP(feed_freep) struct feed *f = mem_zalloc(sizeof(*f));
    int ends[TALK_FDS_MAX] = {-1, -1, -1, -1};
    const char *deleted = NULL;
    pthread_t thread;
    enum rc rc = gather(j, f, ends, &deleted, err);
    const char *const members[] = {"files",   m->has_rootfs_diff ? "yes" : NULL,
                                   "shm",     m->has_shm ? "yes" : NULL,
                                   "deleted", deleted ? "yes" : NULL,
                                   NULL};
    /* NULL values are left out, and NULL ends the list only where a name is due. */
    if (!rc)
        rc = talk_send(FD_CONNECTION, TALK_PREPARE, members, ends, f->n, err);
    for (size_t i = 0; i < f->n; i++)
        fd_closep(&ends[i]);
    if (rc)
        return rc;
    if (pthread_create(&thread, NULL, feed_thread, f) != 0)
        return err_sys(err, "start a thread");
    (void)pthread_detach(thread);
    (void)STEAL(f); /* now the thread's */
    return RC_OK;
}

/* Who is cancelled does not listen any more, see tell_of_life(). */
static enum rc unheard(const struct job *j, enum rc rc, struct err *err)
{
    return cancel_asked(&j->cancel) ? cancel_error(&j->cancel, err)
                                    : err_ctx(err, rc, "the container's entrypoint");
}

static enum rc prepare(void *arg, struct err *err)
{
    struct job *j = arg;
    CLEANUP(talk_done) struct talk t = TALK_INIT;
    enum rc rc = hand_over(j, err);
    if (!rc)
        rc = talk_expect(FD_CONNECTION, TALK_PREPARED, PREPARE_NS, 0, &t, err);
    if (rc)
        return unheard(j, rc, err);
    rc = container_external_here(j->place.task, store_entry_metadata(j->entry), &j->external, err);
    j->req->external = (const char *const *)j->external;
    return rc;
}

/* Nothing runs that the entrypoint does not want any more. */
static enum rc ready(void *arg, pid_t pid, struct err *err)
{
    char number[12];
    CLEANUP(talk_done) struct talk t = TALK_INIT;
    const char *const members[] = {"pid", number, NULL};
    (void)snprintf(number, sizeof(number), "%d", (int)pid);
    enum rc rc = talk_send(FD_CONNECTION, TALK_READY, members, NULL, 0, err);
    if (!rc)
        rc = talk_expect(FD_CONNECTION, TALK_GO, ANSWER_NS, 0, &t, err);
    return rc ? unheard(arg, rc, err) : RC_OK;
}

/* ---- the worker itself ---- */

/* Signs of life, while CRIU or the store take their time.  When the work is given up, nobody has to
 * wait for the entrypoint any more. */
static void *tell_of_life(void *arg)
{
    struct job *j = arg;
    while (!atomic_load(&j->done)) {
        struct pollfd word = {j->cancel.fd, POLLIN, 0};
        (void)!talk_send(FD_CONNECTION, TALK_WAIT, NULL, NULL, 0, NULL);
        if (poll(&word, 1, LIFE_MS) > 0) {
            (void)shutdown(FD_CONNECTION, SHUT_RD);
            return NULL;
        }
    }
    return NULL;
}

static void on_warning(void *arg, const char *text)
{
    const struct job *j = arg;
    log_warn("restore", "checkpoint", j->rescue->id, "warning", text, NULL);
}

/* One that another namespace's pods may read is, for this one, not there. */
static enum rc find_entry(struct job *j, struct store *store, struct err *err)
{
    struct err why = ERR_INIT;
    enum rc rc = store_find(store, j->rescue->id, &j->entry, &why);
    const struct metadata *m = rc ? NULL : store_entry_metadata(j->entry);
    if (rc && rc != RC_NOT_FOUND)
        return err_set(err, rc, "%s", why.msg);
    if (m && m->pod_namespace && strcmp(m->pod_namespace, j->rescue->name_space) == 0)
        return RC_OK;
    return err_set(err, RC_NOT_FOUND,
                   "there is no checkpoint '%.200s' of a pod in namespace '%.80s'", j->rescue->id,
                   j->rescue->name_space);
}

static enum rc restore(struct job *j, const char *criu, struct engine_outcome *out, struct err *err)
{
    const struct engine engine = {
        .criu = criu, .warn = on_warning, .arg = j, .cancel = &j->cancel, .by_signal = true};
    struct engine_restore_request req = {.entry = j->entry,
                                         .place = &j->place,
                                         .prepare = prepare,
                                         .ready = ready,
                                         .prepare_arg = j,
                                         .streams = {FD_STREAM, FD_STREAM + 1, FD_STREAM + 2},
                                         .log_level = 4,
                                         .timeout_ns = j->rescue->timeout_ns};
    j->req = &req;
    enum rc rc = place_open(FD_PIDFD, criu, &j->place, err);
    return rc ? rc : engine_restore(&engine, &req, out, err);
}

static void tell_end(struct job *j, enum rc rc, const struct err *err, struct engine_outcome *o)
{
    char pid[12];
    CLEANUP(fd_closep) int master = o->master;
    (void)snprintf(pid, sizeof(pid), "%d", (int)o->pid);
    const char *const good[] = {"pid", pid, NULL}, *const bad[] = {
                                                       "error", err->msg, "absent",
                                                       rc == RC_NOT_FOUND ? "yes" : NULL, NULL};
    if (rc)
        j->told = talk_send(FD_CONNECTION, TALK_FAILED, bad, NULL, 0, NULL) == RC_OK;
    else
        j->told =
            talk_send(FD_CONNECTION, TALK_RESTORED, good, &master, master >= 0, NULL) == RC_OK;
}

/* RC_NOT_FOUND is left for a checkpoint that is not there: nobody calls that a failure, and it may
 * be asked for again. */
static enum rc restore_found(struct job *j, struct engine_outcome *out, struct err *err)
{
    CLEANUP(mem_freep) char *criu = mem_strdup(j->rescue->criu);
    enum rc rc = criu ? RC_OK : engine_find_criu(&criu, err);
    if (!rc)
        rc = restore(j, criu, out, err);
    return rc == RC_NOT_FOUND ? RC_IO : rc;
}

static enum rc work(struct job *j, struct rescue_result *out, struct err *err)
{
    CLEANUP(store_freep) struct store *store = NULL;
    struct engine_outcome o = {.master = -1};
    pthread_t life;
    uint64_t begun = clock_now();
    bool lives = pthread_create(&life, NULL, tell_of_life, j) == 0;
    enum rc rc = store_open(j->rescue->store, &store, err);
    if (!rc)
        rc = find_entry(j, store, err);
    if (!rc)
        rc = restore_found(j, &o, err);
    atomic_store(&j->done, true);
    tell_end(j, rc, err, &o);
    store_entry_freep(&j->entry);
    if (lives)
        (void)pthread_detach(life);
    *out = (struct rescue_result){.total_ns = clock_now() - begun, .memory_bytes = o.pages_bytes};
    return rc;
}

int rescue_main(int in, int out)
{
    struct err err = ERR_INIT;
    struct rescue r = {.store = NULL};
    struct rescue_result result = {0};
    size_t len = 0;
    CLEANUP(mem_freep) char *text = mem_alloc(WORKER_MESSAGE_MAX);
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(buf_done) struct buf answer = BUF_INIT;
    static struct job j = {.place = PLACE_NOTHING, .cancel = CANCEL_INIT};
    (void)signal(SIGPIPE, SIG_IGN);
    for (int fd = FD_CONNECTION; fd < FD_STREAM + 3; fd++)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    enum rc rc = sys_read_full(in, text, WORKER_MESSAGE_MAX, &len, &err);
    if (!rc)
        rc = rescue_parse(text, len, &doc, &r, &err);
    j.rescue = &r;
    if (!rc)
        rc = cancel_init(&j.cancel, &err);
    if (!rc)
        rc = work(&j, &result, &err);
    format_result(rc, &err, j.told, &result, &answer);
    return sys_write_all(out, answer.data, answer.len, &err) ? 1 : 0;
}

#include "agent/attend.h"

#include "agent/log.h"
#include "agent/pick.h"
#include "agent/report.h"
#include "agent/signal_file.h"
#include "agent/work.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "store/done.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOOK_AGAIN_NS (5 * CLOCK_S) /* when the world could not be asked */
#define BACKOFF_MAX_NS (600 * CLOCK_S)

/* One pod's turn. */
struct turn {
    const struct attend *a;
    const struct kube_pod *p;
    struct cri_container c;
    int pidfd;      /* of the container's first process */
    const char *id; /* of the checkpoint; borrowed; NULL: not known yet */
    unsigned attempts;
};

/* ---- the end of it ---- */

static const char *signal_path(const struct turn *t)
{
    const char *path = cri_container_env(&t->c, "DYN_CHECKPOINT_SIGNAL_FILE");
    return path && *path ? path : NULL;
}

/* Tell the program.  failure: NULL = success */
static enum rc tell_program(const struct turn *t, const char *failure, struct err *err)
{
    const char *path = signal_path(t);
    CLEANUP(mem_freep) char *location = t->id ? store_location(t->a->store, t->id) : NULL;
    const struct done d = {.checkpoint_id = t->id ? t->id : "",
                           .checkpoint_path = failure || !location ? "" : location,
                           .success = !failure,
                           .error = failure};
    if (!path) {
        log_warn("no signal file: DYN_CHECKPOINT_SIGNAL_FILE is not set", "namespace",
                 t->p->name_space, "pod", t->p->name, "container", t->c.name, NULL);
        return RC_OK;
    }
    return signal_file_write(t->pidfd, path, &d, err);
}

/* First the program: after the annotations nobody would do it if the agent ended in between. */
static enum rc finish(const struct turn *t, enum report_state state, const char *message,
                      struct err *err)
{
    const struct report_news news = {.state = state,
                                     .container_id = t->c.id,
                                     .attempts = t->attempts,
                                     .id = state == REPORT_COMPLETED ? t->id : NULL,
                                     .message = message};
    struct err untold = ERR_INIT;
    enum rc told = tell_program(t, message, &untold);
    if (told && told != RC_NOT_FOUND) /* it has ended: there is nobody to be told */
        log_error("signal file not written", "namespace", t->p->name_space, "pod", t->p->name,
                  "error", untold.msg, NULL);
    return report_write(t->a->kube, t->p, &news, err);
}

/* Returns whether nothing is left to be done; else it is tried again, and only then told. */
static bool conclude(const struct turn *t, enum report_state state, const char *reason,
                     const char *text)
{
    struct err err = ERR_INIT;
    bool failed = state == REPORT_FAILED;
    enum rc rc = finish(t, state, failed ? text : NULL, &err);
    if (rc && rc != RC_NOT_FOUND) { /* a pod that has gone is not to be told */
        log_error("outcome not told", "namespace", t->p->name_space, "pod", t->p->name, "outcome",
                  reason, "error", err.msg, NULL);
        return false;
    }
    if (failed)
        metrics_add(t->a->metrics, METRIC_FAILED, 1);
    if (!rc)
        report_event(t->a->kube, t->p, t->a->settings->node, failed, reason, text);
    (failed ? log_error : log_info)(failed ? "checkpoint failed" : "checkpoint succeeded",
                                    "namespace", t->p->name_space, "pod", t->p->name, "container",
                                    t->c.name, "checkpoint", t->id, "what", text, NULL);
    return true;
}

static bool succeed(const struct turn *t, const char *what)
{
    CLEANUP(mem_freep)
    char *text = mem_asprintf("checkpoint %.200s of container %s: %s", t->id, t->c.name, what);
    return conclude(t, REPORT_COMPLETED, "CheckpointSucceeded", text);
}

static bool fail(const struct turn *t, const char *why)
{
    return conclude(t, REPORT_FAILED, "CheckpointFailed", why);
}

/* ---- what is there already ---- */

enum there { THERE_NOTHING, THERE_OURS, THERE_ANOTHERS };

/* Whether the store has a good one already.  All namespaces share its ids: what a pod of another
 * one is in is none of this pod's. */
static enum there look_there(const struct turn *t)
{
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    if (store_find(t->a->store, t->id, &e, NULL) != RC_OK)
        return THERE_NOTHING;
    const char *from = store_entry_metadata(e)->pod_namespace;
    return from && strcmp(from, t->p->name_space) != 0 ? THERE_ANOTHERS : THERE_OURS;
}

static bool take_what_is_there(const struct turn *t)
{
    if (look_there(t) != THERE_ANOTHERS)
        return succeed(t, "it is there already");
    CLEANUP(mem_freep)
    char *why = mem_asprintf("the id '%.200s' is taken by a pod of another namespace: choose "
                             "another one (label nvidia.com/checkpoint-hash)",
                             t->id);
    return fail(t, why);
}

/* ---- the capture ---- */

static struct work describe_work(const struct turn *t)
{
    const struct settings *s = t->a->settings;
    return (struct work){.store = store_path(t->a->store),
                         .id = t->id,
                         .criu = s->criu,
                         .pid = t->c.pid,
                         .plain = s->plain,
                         .codec = s->codec,
                         .ghost_limit = (uint32_t)s->ghost_limit,
                         .timeout_ns = s->timeout_s * CLOCK_S,
                         .spec = t->c.spec,
                         .external = s->external,
                         .container = {.node = s->node,
                                       .container_id = t->c.id,
                                       .pod_name = t->p->name,
                                       .pod_namespace = t->p->name_space,
                                       .pod_ip = t->p->ip,
                                       .image = t->c.image}};
}

/* What another try cannot better. */
static bool is_final(enum rc rc)
{
    return rc == RC_UNSUPPORTED || rc == RC_INVALID || rc == RC_DENIED;
}

static void count(const struct turn *t, const struct work_result *r)
{
    struct metrics *m = t->a->metrics;
    metrics_add(m, METRIC_SUCCEEDED, 1);
    metrics_add(m, METRIC_BYTES, r->total_bytes);
    metrics_add(m, METRIC_MEMORY_BYTES, r->memory_bytes);
    metrics_time(m, METRIC_TIME_CAPTURE, r->total_ns);
    metrics_time(m, METRIC_TIME_FREEZE, r->freeze_ns);
}

static uint64_t next_try(const struct turn *t)
{
    uint64_t pause = t->a->settings->backoff_ns;
    for (unsigned i = 1; i < t->attempts && pause < BACKOFF_MAX_NS; i++)
        pause *= 2;
    return clock_now() + (pause < BACKOFF_MAX_NS ? pause : BACKOFF_MAX_NS);
}

static bool capture(struct turn *t, uint64_t *out_due)
{
    struct err err = ERR_INIT;
    struct work_result r;
    char what[128];
    const struct work w = describe_work(t);
    report_event(t->a->kube, t->p, t->a->settings->node, false, "CheckpointRequested", t->id);
    log_info("capture", "namespace", t->p->name_space, "pod", t->p->name, "container", t->c.name,
             "checkpoint", t->id, NULL);
    enum rc rc = work_run(&w, t->a->stop, &r, &err);
    if (!rc) {
        count(t, &r);
        (void)snprintf(what, sizeof(what), "%" PRIu64 " bytes, frozen for %" PRIu64 " ms",
                       r.total_bytes, r.freeze_ns / CLOCK_MS);
        return succeed(t, what);
    }
    if (rc == RC_EXISTS)
        return take_what_is_there(t);
    if (rc == RC_CANCELLED)
        return false;
    if (is_final(rc) || t->attempts >= t->a->settings->tries)
        return fail(t, err.msg);
    *out_due = next_try(t);
    metrics_add(t->a->metrics, METRIC_RETRIED, 1);
    report_event(t->a->kube, t->p, t->a->settings->node, true, "CheckpointRetried", err.msg);
    log_warn("capture failed, to be tried again", "namespace", t->p->name_space, "pod", t->p->name,
             "checkpoint", t->id, "error", err.msg, NULL);
    return false;
}

/* ---- the decision ---- */

/* The attempt is counted before it begins, so that one that ends the agent counts, too. */
static bool try(struct turn *t, uint64_t *out_due)
{
    struct err err = ERR_INIT;
    if (t->attempts >= t->a->settings->tries)
        return fail(t, "every try has ended with the agent's own end");
    t->attempts++;
    const struct report_news news = {
        .state = REPORT_IN_PROGRESS, .container_id = t->c.id, .attempts = t->attempts, .id = t->id};
    enum rc rc = report_write(t->a->kube, t->p, &news, &err);
    if (!rc)
        return capture(t, out_due);
    log_warn("capture not begun", "namespace", t->p->name_space, "pod", t->p->name, "error",
             err.msg, NULL);
    return rc == RC_NOT_FOUND || rc == RC_INVALID; /* gone, or another pod of its name */
}

static bool decide(struct turn *t, uint64_t *out_due)
{
    struct err err = ERR_INIT;
    struct report r = report_read(t->p, t->c.id);
    if (r.state == REPORT_COMPLETED || r.state == REPORT_FAILED)
        return true;
    t->attempts = r.attempts;
    if (pick_id(t->p, &t->c, &t->id, &err) != RC_OK)
        return fail(t, err.msg);
    if (look_there(t) != THERE_NOTHING)
        return take_what_is_there(t);
    return try(t, out_due);
}

/* There is no container to tell; the annotations say so once. */
static bool refuse(const struct attend *a, const struct kube_pod *p, const char *why)
{
    struct err err = ERR_INIT;
    const struct report_news news = {.state = REPORT_FAILED, .container_id = "", .message = why};
    if (report_read(p, "").state == REPORT_FAILED)
        return true;
    enum rc rc = report_write(a->kube, p, &news, &err);
    if (!rc) {
        metrics_add(a->metrics, METRIC_FAILED, 1);
        report_event(a->kube, p, a->settings->node, true, "CheckpointFailed", why);
    }
    log_error("pod refused", "namespace", p->name_space, "pod", p->name, "error", why, "because",
              rc ? err.msg : NULL, NULL);
    return !rc || rc == RC_NOT_FOUND;
}

/* The container's first process, held: the runtime has said again that it is that one, so that a
 * number that had been somebody else's meanwhile is found out. */
static enum rc hold(const struct attend *a, const char *id, struct turn *t, struct err *err)
{
    enum rc rc = cri_container(a->cri, id, &t->c, err);
    if (rc)
        return rc;
    pid_t first = t->c.pid;
    t->pidfd = first > 0 ? (int)syscall(SYS_pidfd_open, first, 0) : -1;
    cri_container_done(&t->c);
    rc = cri_container(a->cri, id, &t->c, err);
    if (!rc && (t->pidfd < 0 || t->c.pid != first || t->c.state != CRI_RUNNING))
        rc = err_set(err, RC_NOT_FOUND, "it does not run");
    return rc;
}

void attend_pod(const struct attend *a, const struct kube_pod *p, char **out_done,
                uint64_t *out_due)
{
    struct err err = ERR_INIT;
    struct turn t = {.a = a, .p = p, .pidfd = -1};
    const struct kube_pod_container *chosen = NULL;
    bool done = false;
    *out_done = NULL;
    *out_due = clock_now() + LOOK_AGAIN_NS;
    if (pick_container(p, &chosen, &err) != RC_OK) {
        if (refuse(a, p, err.msg))
            *out_done = mem_strdup("");
        return;
    }
    const char *id = cri_bare_id(chosen->id);
    if (hold(a, id, &t, &err) == RC_OK)
        done = decide(&t, out_due);
    else
        log_warn("container not to be looked at", "namespace", p->name_space, "pod", p->name,
                 "container", chosen->name, "error", err.msg, NULL);
    fd_closep(&t.pidfd);
    cri_container_done(&t.c);
    if (done)
        *out_done = mem_strdup(id);
}

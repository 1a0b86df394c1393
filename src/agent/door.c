#include "agent/door.h"

#include "agent/caller.h"
#include "agent/log.h"
#include "agent/pace.h"
#include "agent/report.h"
#include "agent/rescue.h"
#include "assist/talk.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/name.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define VISITORS_MAX 32
#define OF_ONE_POD_MAX 4
#define OF_ONE_NAMESPACE_MAX 16
#define REPORTS_AT_ONCE 6 /* of one pod: annotations and Events, then one in a while */
#define REPORTS_PAUSE_NS (60 * CLOCK_S)
#define CGROUPS_MAX 65536
#define BACKLOG 64
#define ACCEPT_PAUSE_MS 100
#define REQUEST_NS (5 * CLOCK_S)

struct door {
    struct door_tools tools;
    char *path;
    int socket, woken;
    pthread_t thread;
    bool running;
    struct pace *reports; /* by pod */
    pthread_mutex_t lock; /* guards `visitors` and `places` */
    pthread_cond_t left;
    unsigned visitors;
    struct place_taken {
        bool taken;
        char *pod;        /* the folder of its control groups */
        char *name_space; /* NULL: not known yet */
    } places[VISITORS_MAX];
};

/* ---- one visitor ---- */

struct visit {
    struct door *door;
    int sk;
    size_t place;
};

/* What it asks for. */
struct wish {
    char *id;
    uint64_t timeout_s;
    int fd[TALK_FDS_MAX]; /* of itself, and its streams */
};

#define WISH_NOTHING                                                                               \
    {                                                                                              \
        .fd = { -1, -1, -1, -1 }                                                                   \
    }

static void wish_done(struct wish *w)
{
    for (size_t i = 0; i < TALK_FDS_MAX; i++)
        fd_closep(&w->fd[i]);
    free(w->id);
}

static enum rc hear(int sk, struct wish *out, struct err *err)
{
    CLEANUP(talk_done) struct talk t = TALK_INIT;
    enum rc rc = talk_expect(sk, TALK_RESTORE, REQUEST_NS, clock_now() + REQUEST_NS, &t, err);
    if (rc)
        return rc;
    const char *id = talk_text(&t, "id");
    if (!id || t.n_fds != TALK_FDS_MAX)
        return err_set(err, RC_CORRUPT, "a request without an id or descriptors");
    rc = name_check_id(id, err);
    if (rc)
        return rc;
    out->id = mem_strdup(id);
    out->timeout_s = talk_number(&t, "timeout_s");
    for (size_t i = 0; i < TALK_FDS_MAX; i++)
        out->fd[i] = fd_steal(&t.fd[i]);
    return RC_OK;
}

static struct kube_pod pod_of(const struct cri_container *k)
{
    return (struct kube_pod){
        .name = k->pod_name, .name_space = k->pod_namespace, .uid = k->pod_uid};
}

/* What the cluster gets to see of it. */
static void report(const struct door *d, const struct caller *c, const struct wish *w, enum rc rc,
                   const char *text)
{
    const struct door_tools *t = &d->tools;
    const struct cri_container *k = &c->container;
    const struct kube_pod pod = pod_of(k);
    struct err untold = ERR_INIT;
    if (report_restore(t->kube, &pod, k->id, w->id, rc ? text : NULL, &untold) != RC_OK)
        log_warn("restore not noted on the pod", "namespace", k->pod_namespace, "pod", k->pod_name,
                 "error", untold.msg, NULL);
    report_event(t->kube, &pod, t->settings->node, rc != RC_OK,
                 rc ? "RestoreFailed" : "RestoreSucceeded", text);
}

static void say(const struct door *d, const struct caller *c, const struct wish *w, enum rc rc,
                const char *text)
{
    const struct cri_container *k = &c->container;
    metrics_add(d->tools.metrics, rc ? METRIC_RESTORE_FAILED : METRIC_RESTORED, 1);
    if (pace_allows(d->reports, k->pod_uid, clock_now()))
        report(d, c, w, rc, text);
    (rc ? log_error : log_info)(rc ? "restore failed" : "restore succeeded", "namespace",
                                k->pod_namespace, "pod", k->pod_name, "container", k->name,
                                "checkpoint", w->id, "what", text, NULL);
}

static enum rc restore(const struct visit *v, const struct caller *c, const struct wish *w,
                       bool *out_told, struct err *err)
{
    const struct door_tools *t = &v->door->tools;
    const struct cri_container *k = &c->container;
    const struct rescue r = {.store = store_path(t->store),
                             .id = w->id,
                             .criu = t->settings->criu,
                             .name_space = k->pod_namespace,
                             .timeout_ns = w->timeout_s * CLOCK_S};
    const struct rescue_fds fds = {v->sk, w->fd[0], {w->fd[1], w->fd[2], w->fd[3]}};
    struct rescue_result result = {0};
    log_info("restore", "namespace", k->pod_namespace, "pod", k->pod_name, "container", k->name,
             "checkpoint", w->id, NULL);
    enum rc rc = rescue_run(&r, &fds, t->stop, &result, out_told, err);
    CLEANUP(mem_freep)
    char *good = mem_asprintf("checkpoint %.200s in container %s: %" PRIu64
                              " bytes of memory, %" PRIu64 " ms",
                              w->id, k->name, result.memory_bytes, result.total_ns / CLOCK_MS);
    if (!rc)
        metrics_time(t->metrics, METRIC_TIME_RESTORE, result.total_ns);
    if (rc != RC_NOT_FOUND) /* nothing to be restored is no failure of it */
        say(v->door, c, w, rc, rc ? err->msg : good);
    return rc;
}

/* One namespace leaves room for others. */
static enum rc take_namespace(const struct visit *v, const char *name_space, struct err *err)
{
    struct door *d = v->door;
    size_t same = 0;
    (void)pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < VISITORS_MAX; i++)
        same += d->places[i].name_space && strcmp(d->places[i].name_space, name_space) == 0;
    bool room = same < OF_ONE_NAMESPACE_MAX;
    if (room)
        d->places[v->place].name_space = mem_strdup(name_space);
    (void)pthread_mutex_unlock(&d->lock);
    return room
               ? RC_OK
               : err_set(err, RC_UNAVAILABLE,
                         "the agent has too many restores to do for namespace '%.80s'", name_space);
}

static void receive(const struct visit *v)
{
    struct err err = ERR_INIT;
    CLEANUP(wish_done) struct wish w = WISH_NOTHING;
    CLEANUP(caller_done) struct caller c = {.pid = 0};
    const struct settings *s = v->door->tools.settings;
    bool told = false;
    enum rc rc = hear(v->sk, &w, &err);
    if (!rc)
        rc = caller_find(v->door->tools.cri, v->sk, w.fd[0], &c, &err);
    if (!rc && s->name_space && strcmp(s->name_space, c.container.pod_namespace) != 0)
        rc = err_set(&err, RC_DENIED, "this agent works for namespace '%.80s' only", s->name_space);
    if (!rc)
        rc = take_namespace(v, c.container.pod_namespace, &err);
    if (rc)
        log_warn("caller refused", "error", err.msg, NULL);
    else
        rc = restore(v, &c, &w, &told, &err);
    const char *const members[] = {"error", err.msg, NULL};
    if (rc && !told)
        (void)!talk_send(v->sk, TALK_FAILED, members, NULL, 0, NULL);
}

static void leave(struct door *d, size_t place)
{
    (void)pthread_mutex_lock(&d->lock);
    struct place_taken *p = &d->places[place];
    free(p->pod);
    free(p->name_space);
    *p = (struct place_taken){.taken = false};
    d->visitors--;
    (void)pthread_cond_signal(&d->left);
    (void)pthread_mutex_unlock(&d->lock);
}

static void *visit_thread(void *arg)
{
    struct visit *v = arg;
    receive(v);
    fd_closep(&v->sk);
    leave(v->door, v->place);
    free(v);
    return NULL;
}

/* ---- the door ---- */

/* The pod at the other end, as far as control groups tell: one above the container's; "" when it
 * cannot be told.  The caller's (free). */
static char *pod_at(int sk)
{
    char path[40];
    struct ucred peer;
    socklen_t len = sizeof(peer);
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (getsockopt(sk, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return mem_strdup("");
    (void)snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)peer.pid);
    if (fs_read_file(AT_FDCWD, path, CGROUPS_MAX, &text, NULL) != RC_OK)
        return mem_strdup("");
    char *pod = mem_strdup(buf_str(&text));
    char *slash = strrchr(pod, '/');
    if (slash)
        *slash = '\0';
    return pod;
}

/* NULL when there is room; then *out is taken. */
static const char *enter(struct door *d, int sk, size_t *out)
{
    size_t free_one = VISITORS_MAX, same = 0;
    CLEANUP(mem_freep) char *pod = pod_at(sk);
    (void)pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < VISITORS_MAX; i++) {
        if (!d->places[i].taken)
            free_one = i;
        else if (strcmp(d->places[i].pod, pod) == 0)
            same++;
    }
    bool room = free_one < VISITORS_MAX && same < OF_ONE_POD_MAX;
    if (room) {
        d->places[free_one] = (struct place_taken){.taken = true, .pod = STEAL(pod)};
        d->visitors++;
        *out = free_one;
    }
    (void)pthread_mutex_unlock(&d->lock);
    if (room)
        return NULL;
    return free_one < VISITORS_MAX ? "the agent has too many restores to do for this pod"
                                   : "the agent has too many restores to do";
}

static void turn_away(int sk, const char *why)
{
    const char *const members[] = {"error", why, NULL};
    (void)!talk_send(sk, TALK_FAILED, members, NULL, 0, NULL);
}

static void let_in(struct door *d)
{
    pthread_t thread;
    CLEANUP(fd_closep) int sk = accept4(d->socket, NULL, NULL, SOCK_CLOEXEC);
    if (sk < 0) { /* out of descriptors, say: whoever knocks is still there at once */
        struct pollfd woken = {d->woken, POLLIN, 0};
        (void)poll(&woken, 1, ACCEPT_PAUSE_MS);
        return;
    }
    size_t place = 0;
    const char *why = enter(d, sk, &place);
    if (why)
        return turn_away(sk, why);
    struct visit *v = mem_zalloc(sizeof(*v));
    *v = (struct visit){d, fd_steal(&sk), place};
    if (pthread_create(&thread, NULL, visit_thread, v) == 0) {
        (void)pthread_detach(thread);
        return;
    }
    turn_away(v->sk, "the agent cannot start a thread");
    fd_closep(&v->sk);
    leave(d, place);
    free(v);
}

static void *door_thread(void *arg)
{
    struct door *d = arg;
    for (;;) {
        struct pollfd wait[] = {{d->socket, POLLIN, 0}, {d->woken, POLLIN, 0}};
        if (poll(wait, 2, -1) < 0 && errno != EINTR)
            abort(); /* its arguments are right */
        if (wait[1].revents)
            return NULL;
        if (wait[0].revents)
            let_in(d);
    }
}

/* The socket appears under its name when it can be connected to by everybody. */
static enum rc open_socket(struct door *d, struct err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    CLEANUP(mem_freep) char *folder = mem_strdup(d->path);
    char *slash = strrchr(folder, '/');
    int len = snprintf(a.sun_path, sizeof(a.sun_path), "%s.new", d->path);
    if (d->path[0] != '/' || !slash[1] || len < 0 || (size_t)len >= sizeof(a.sun_path))
        return err_set(err, RC_INVALID, "socket '%.200s': no absolute path of at most %zu bytes",
                       d->path, sizeof(a.sun_path) - sizeof(".new"));
    *slash = '\0';
    enum rc rc = *folder ? fs_mkdirs(folder, 0755, err) : RC_OK;
    if (rc)
        return rc;
    (void)unlink(a.sun_path);
    d->socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (d->socket < 0 || bind(d->socket, (struct sockaddr *)&a, sizeof(a)) < 0 ||
        chmod(a.sun_path, 0666) < 0 || listen(d->socket, BACKLOG) < 0 ||
        sys_rename(AT_FDCWD, a.sun_path, d->path, 0) < 0)
        return err_sys(err, "listen on '%s'", d->path);
    return RC_OK;
}

enum rc door_start(const char *path, const struct door_tools *tools, struct door **out,
                   struct err *err)
{
    CLEANUP(door_stopp) struct door *d = mem_zalloc(sizeof(*d));
    *d = (struct door){.tools = *tools, .path = mem_strdup(path), .socket = -1};
    d->reports = pace_new(REPORTS_AT_ONCE, REPORTS_PAUSE_NS);
    (void)pthread_mutex_init(&d->lock, NULL);
    (void)pthread_cond_init(&d->left, NULL);
    d->woken = eventfd(0, EFD_CLOEXEC);
    enum rc rc = d->woken < 0 ? err_sys(err, "make an eventfd") : open_socket(d, err);
    if (rc)
        return rc;
    if (pthread_create(&d->thread, NULL, door_thread, d) != 0)
        return err_sys(err, "start a thread");
    d->running = true;
    *out = STEAL(d);
    return RC_OK;
}

static void wait_for_visitors(struct door *d)
{
    (void)pthread_mutex_lock(&d->lock);
    while (d->visitors > 0)
        (void)pthread_cond_wait(&d->left, &d->lock);
    (void)pthread_mutex_unlock(&d->lock);
}

void door_stopp(struct door **door)
{
    struct door *d = STEAL(*door);
    if (!d)
        return;
    if (d->running) {
        (void)eventfd_write(d->woken, 1);
        (void)pthread_join(d->thread, NULL);
        (void)unlink(d->path);
    }
    wait_for_visitors(d);
    fd_closep(&d->socket);
    fd_closep(&d->woken);
    (void)pthread_cond_destroy(&d->left);
    (void)pthread_mutex_destroy(&d->lock);
    pace_freep(&d->reports);
    free(d->path);
    free(d);
}

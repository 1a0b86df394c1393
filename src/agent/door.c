#include "agent/door.h"

#include "agent/caller.h"
#include "agent/log.h"
#include "agent/report.h"
#include "agent/rescue.h"
#include "assist/talk.h"
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
#define BACKLOG 64
#define ACCEPT_PAUSE_MS 100
#define REQUEST_NS (5 * CLOCK_S)

struct door {
    struct door_tools tools;
    char *path;
    int socket, woken;
    pthread_t thread;
    bool running;
    pthread_mutex_t lock; /* guards `visitors` */
    pthread_cond_t left;
    unsigned visitors;
};

/* ---- one visitor ---- */

struct visit {
    struct door *door;
    int sk;
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

static void say(const struct door *d, const struct caller *c, const struct wish *w, enum rc rc,
                const char *text)
{
    const struct door_tools *t = &d->tools;
    const struct cri_container *k = &c->container;
    const struct kube_pod pod = pod_of(k);
    struct err untold = ERR_INIT;
    metrics_add(t->metrics, rc ? METRIC_RESTORE_FAILED : METRIC_RESTORED, 1);
    if (report_restore(t->kube, &pod, k->id, w->id, rc ? text : NULL, &untold) != RC_OK)
        log_warn("restore not noted on the pod", "namespace", k->pod_namespace, "pod", k->pod_name,
                 "error", untold.msg, NULL);
    report_event(t->kube, &pod, t->settings->node, rc != RC_OK,
                 rc ? "RestoreFailed" : "RestoreSucceeded", text);
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
    if (rc)
        log_warn("caller refused", "error", err.msg, NULL);
    else
        rc = restore(v, &c, &w, &told, &err);
    const char *const members[] = {"error", err.msg, NULL};
    if (rc && !told)
        (void)!talk_send(v->sk, TALK_FAILED, members, NULL, 0, NULL);
}

static void leave(struct door *d)
{
    (void)pthread_mutex_lock(&d->lock);
    d->visitors--;
    (void)pthread_cond_signal(&d->left);
    (void)pthread_mutex_unlock(&d->lock);
}

static void *visit_thread(void *arg)
{
    struct visit *v = arg;
    receive(v);
    fd_closep(&v->sk);
    leave(v->door);
    free(v);
    return NULL;
}

/* ---- the door ---- */

static bool enter(struct door *d)
{
    (void)pthread_mutex_lock(&d->lock);
    bool room = d->visitors < VISITORS_MAX;
    d->visitors += room;
    (void)pthread_mutex_unlock(&d->lock);
    return room;
}

static void turn_away(int sk)
{
    static const char *const members[] = {"error", "the agent has too many restores to do", NULL};
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
    if (!enter(d))
        return turn_away(sk);
    struct visit *v = mem_zalloc(sizeof(*v));
    *v = (struct visit){d, fd_steal(&sk)};
    if (pthread_create(&thread, NULL, visit_thread, v) == 0) {
        (void)pthread_detach(thread);
        return;
    }
    turn_away(v->sk);
    fd_closep(&v->sk);
    leave(d);
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
    free(d->path);
    free(d);
}

#include "criu/session.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/launch.h"

#include <assert.h>
#include <criu_rpc.pb-c.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MESSAGE_MAX ((size_t)1 << 20)
#define OUTPUT_SHOWN 300
#define SETTLE_NS (10 * CLOCK_S) /* for CRIU to let a tree go, or end it, once all is decided */
#define CANCEL_NS (3 * CLOCK_S)  /* the same, when somebody waits for us to end */

enum {
    TYPE_DUMP = 1,
    TYPE_RESTORE = 2,
    TYPE_CHECK = 3,
    TYPE_NOTIFY = 6,
    TYPE_FEATURES = 9,
    TYPE_VERSION = 10
};
enum { CGROUPS_IGNORE = 0 };

struct cr_session {
    struct cr_process process;
    const struct cancel *cancel; /* NULL: nobody gives up, or it is known already */
    bool broken; /* it ended or was ended in the middle: helpers of it may live on */
    bool spoke;
};

static const char *const event_names[CR_EVENT_COUNT_] = {
    [CR_PRE_DUMP] = "pre-dump",
    [CR_POST_DUMP] = "post-dump",
    [CR_NETWORK_LOCK] = "network-lock",
    [CR_NETWORK_UNLOCK] = "network-unlock",
    [CR_PRE_RESTORE] = "pre-restore",
    [CR_SETUP_NAMESPACES] = "setup-namespaces",
    [CR_POST_SETUP_NAMESPACES] = "post-setup-namespaces",
    [CR_POST_RESTORE] = "post-restore",
    [CR_PRE_RESUME] = "pre-resume",
    [CR_POST_RESUME] = "post-resume",
    [CR_ORPHAN_PTS_MASTER] = "orphan-pts-master",
    [CR_STATUS_READY] = "status-ready",
    [CR_PRE_STREAM] = "pre-stream",
    [CR_QUERY_EXT_FILES] = "query-ext-files",
};

static enum cr_event event_of(const char *script)
{
    for (int i = 1; script && i < CR_EVENT_COUNT_; i++)
        if (strcmp(script, event_names[i]) == 0)
            return (enum cr_event)i;
    return CR_UNKNOWN;
}

enum rc cr_session_open(const struct cr_launch *launch, struct cr_session **out, struct err *err)
{
    struct cr_process p;
    enum rc rc = cr_process_start(launch, &p, err);
    if (rc)
        return rc;
    struct cr_session *s = mem_zalloc(sizeof(*s));
    s->process = p;
    s->cancel = launch->cancel;
    *out = s;
    return RC_OK;
}

pid_t cr_session_pid(const struct cr_session *s)
{
    return s->process.pid;
}

bool cr_session_broken(const struct cr_session *s)
{
    return s->broken;
}

void cr_session_freep(struct cr_session **p)
{
    struct cr_session *s = STEAL(*p);
    if (!s)
        return;
    cr_process_end(&s->process, s->broken);
    free(s);
}

/* What CRIU printed before it had a log, on one line. */
static void add_output(const struct cr_session *s, struct err *err, enum rc rc)
{
    char text[OUTPUT_SHOWN + 1];
    ssize_t n = pread(s->process.output, text, OUTPUT_SHOWN, 0);
    if (!err || n <= 0)
        return;
    text[n] = '\0';
    for (char *p = text; *p; p++)
        if (*p == '\n')
            *p = p[1] ? ';' : '\0';
    struct err copy = *err;
    (void)err_set(err, rc, "%s (CRIU printed: %s)", copy.msg, text);
}

static enum rc send_message(struct cr_session *s, const Criu__Request *req, struct err *err)
{
    size_t size = criu__request__get_packed_size(req);
    CLEANUP(mem_freep) uint8_t *bytes = mem_alloc(size);
    (void)criu__request__pack(req, bytes);
    if (send(s->process.socket, bytes, size, MSG_NOSIGNAL) != (ssize_t)size)
        return err_sys(err, "talk to CRIU");
    return RC_OK;
}

/* Who has never said anything may not be a CRIU. */
static enum rc doubt(const struct cr_session *s, enum rc rc, struct err *err)
{
    if (!err || s->spoke)
        return rc;
    struct err copy = *err;
    return err_set(err, rc,
                   "%.400s; is it a criu program, 4.2 or newer? --criu and $CHREK_CRIU name it",
                   copy.msg);
}

/* How CRIU ended, for people. */
static enum rc ended(struct cr_session *s, struct err *err)
{
    siginfo_t info = {.si_pid = 0};
    struct pollfd end = {s->process.pidfd, POLLIN, 0};
    s->broken = true;
    (void)poll(&end, 1, 1000); /* the socket may close a moment before */
    enum rc rc = RC_IO;
    if (waitid(P_PIDFD, (id_t)s->process.pidfd, &info, WEXITED | WNOWAIT | WNOHANG | __WALL) == 0 &&
        info.si_pid != 0 && info.si_code != CLD_EXITED)
        rc = err_set(err, RC_IO, "CRIU was killed by signal %d (%s)%s", info.si_status,
                     strsignal(info.si_status),
                     info.si_status == SIGKILL ? ", perhaps for lack of memory" : "");
    else
        rc = err_set(err, RC_IO, "CRIU ended without an answer");
    add_output(s, err, rc);
    return info.si_code == CLD_EXITED || !info.si_pid ? doubt(s, rc, err) : rc;
}

/* Wait until there is something to receive.
 * errors  RC_CANCELLED, once; RC_TIMEOUT, RC_IO */
static enum rc await(struct cr_session *s, uint64_t deadline, struct err *err)
{
    for (;;) {
        /* CRIU's own end counts too: a helper of it may live on and keep the socket open. */
        struct pollfd wait[] = {{s->process.socket, POLLIN, 0},
                                {s->process.pidfd, POLLIN, 0},
                                {s->cancel ? s->cancel->fd : -1, POLLIN, 0}};
        int n = poll(wait, 3, clock_poll_ms(deadline));
        if (n < 0 && errno != EINTR)
            return err_sys(err, "wait for CRIU");
        s->broken = s->broken || n == 0;
        if (n == 0)
            return err_set(err, RC_TIMEOUT, "CRIU did not answer in time");
        if (n > 0 && wait[0].revents)
            return RC_OK;
        if (n > 0 && wait[2].revents)
            return cancel_error(STEAL(s->cancel), err);
        if (n > 0 && poll(wait, 1, 0) == 0) /* it may have answered and ended since */
            return ended(s, err);
    }
}

static enum rc receive_bytes(struct cr_session *s, void *data, size_t size, int *out_fd,
                             struct err *err)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec io = {data, size};
    struct msghdr msg = {.msg_iov = &io,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = sizeof(control.space)};
    if (recvmsg(s->process.socket, &msg, MSG_CMSG_CLOEXEC) != (ssize_t)size)
        return err_set(err, RC_IO, "a message of CRIU was cut short");
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(out_fd, CMSG_DATA(c), sizeof(int));
    return RC_OK;
}

/* Receive one message.  out: criu__response__free_unpacked(); out_fd: the caller's or -1. */
static enum rc receive_message(struct cr_session *s, uint64_t deadline, Criu__Response **out,
                               int *out_fd, struct err *err)
{
    enum rc rc = await(s, deadline, err);
    if (rc)
        return rc;
    char probe;
    ssize_t size = recv(s->process.socket, &probe, 1, MSG_PEEK | MSG_TRUNC);
    if (size < 0 && errno != ECONNRESET)
        return err_sys(err, "hear from CRIU");
    if (size <= 0) {
        return ended(s, err);
    }
    if ((size_t)size > MESSAGE_MAX)
        return err_set(err, RC_TOO_BIG, "a message of %zd bytes from CRIU", size);
    CLEANUP(mem_freep) uint8_t *bytes = mem_alloc((size_t)size);
    CLEANUP(fd_closep) int fd = -1;
    rc = receive_bytes(s, bytes, (size_t)size, &fd, err);
    if (rc)
        return rc;
    Criu__Response *r = criu__response__unpack(NULL, (size_t)size, bytes);
    if (!r)
        return err_set(err, RC_IO, "a message of CRIU makes no sense");
    *out = r;
    *out_fd = fd_steal(&fd);
    s->spoke = true;
    return RC_OK;
}

/* refuse  whoever is asked says no, without being asked */
static enum rc answer_notification(struct cr_session *s, const Criu__Response *r, int fd,
                                   const struct cr_hooks *hooks, bool refuse, struct err *err)
{
    CLEANUP(fd_closep) int master = fd;
    enum cr_event event = r->notify ? event_of(r->notify->script) : CR_UNKNOWN;
    pid_t pid = r->notify && r->notify->has_pid ? r->notify->pid : 0;
    enum rc rc = RC_OK;
    if (hooks && hooks->event)
        rc = hooks->event(hooks->arg, event, pid, fd_steal(&master), err);
    Criu__Request answer = CRIU__REQUEST__INIT;
    answer.type = TYPE_NOTIFY;
    answer.has_notify_success = true;
    answer.notify_success = rc == RC_OK && !refuse;
    struct err ignored = ERR_INIT;
    enum rc sent = send_message(s, &answer, rc ? &ignored : err);
    return rc ? rc : sent;
}

static uint64_t sooner(uint64_t deadline, uint64_t limit)
{
    return !deadline || limit < deadline ? limit : deadline;
}

/* Serve notifications until the answer to the request comes. */
static enum rc converse(struct cr_session *s, int type, const struct cr_hooks *hooks,
                        uint64_t deadline, Criu__Response **out, struct err *err)
{
    struct err later = ERR_INIT; /* after a failed hook only the hook's error counts */
    enum rc hook_rc = RC_OK;
    bool refuse = false, late = false;
    for (;;) {
        Criu__Response *r = NULL;
        CLEANUP(fd_closep) int fd = -1;
        enum rc rc = receive_message(s, deadline, &r, &fd, hook_rc ? &later : err);
        /* It lets go at the first no, better than when it is killed; it may be standing. */
        if (type == TYPE_DUMP && !late && (rc == RC_CANCELLED || rc == RC_TIMEOUT)) {
            refuse = !hook_rc;
            late = true;
            hook_rc = hook_rc ? hook_rc : rc;
            deadline = clock_now() + CANCEL_NS;
            (void)kill(s->process.pid, SIGCONT);
            continue;
        }
        s->broken = s->broken || rc == RC_CANCELLED;
        if (rc)
            return hook_rc ? hook_rc : rc;
        assert(r); /* what receive_message() promises */
        if (r->type != TYPE_NOTIFY) {
            if (r->type == type && !hook_rc) {
                *out = r;
                return RC_OK;
            }
            rc = hook_rc ? hook_rc : err_set(err, RC_IO, "CRIU answered with message %d", r->type);
            criu__response__free_unpacked(r, NULL);
            return rc;
        }
        bool dumped = r->notify && event_of(r->notify->script) == CR_POST_DUMP;
        rc = answer_notification(s, r, fd_steal(&fd), hook_rc ? NULL : hooks, refuse,
                                 hook_rc ? &later : err);
        refuse = false;
        criu__response__free_unpacked(r, NULL);
        uint64_t limit = clock_now() + SETTLE_NS;
        if (rc && !hook_rc) { /* hear CRIU out, so that it can undo what it did, but not for ever */
            hook_rc = rc;
            deadline = sooner(deadline, limit);
        } else if (!hook_rc && dumped && deadline && limit > deadline) {
            deadline = limit; /* the images are good, however long the hook took */
        }
    }
}

static enum rc request(struct cr_session *s, int type, Criu__Opts *opts,
                       const struct cr_hooks *hooks, uint64_t deadline, Criu__Response **out,
                       struct err *err)
{
    Criu__Request req = CRIU__REQUEST__INIT;
    Criu__Features features = CRIU__FEATURES__INIT; /* CRIU looks only for what is asked for */
    features.has_mem_track = features.mem_track = true;
    features.has_lazy_pages = features.lazy_pages = true;
    features.has_pidfd_store = features.pidfd_store = true;
    req.type = type;
    req.opts = opts;
    req.features = type == TYPE_FEATURES ? &features : NULL;
    enum rc rc = send_message(s, &req, err);
    if (rc) { /* it had ended before it was asked */
        add_output(s, err, rc);
        rc = doubt(s, rc, err);
    } else
        rc = converse(s, type, hooks, deadline, out, err);
    if (rc)
        return rc;
    assert(*out); /* what converse() promises */
    if ((*out)->success)
        return RC_OK;
    const char *said = (*out)->cr_errmsg ? (*out)->cr_errmsg : "";
    int number = (*out)->has_cr_errno ? (*out)->cr_errno : 0;
    if (number)
        rc = err_set(err, RC_IO, "CRIU failed: %.200s (%s)", said, strerrordesc_np(number));
    else
        rc = err_set(err, RC_IO, "CRIU failed%s%.300s", *said ? ": " : "", said);
    criu__response__free_unpacked(*out, NULL);
    *out = NULL;
    return rc;
}

#define SET(field, value)                                                                          \
    do {                                                                                           \
        o->has_##field = (value) != 0;                                                             \
        o->field = (value);                                                                        \
    } while (0)

static void fill_flags(Criu__Opts *o, const struct cr_opts *c)
{
    SET(leave_running, c->leave_running);
    SET(shell_job, c->shell_job);
    SET(tcp_established, c->tcp_established);
    SET(tcp_close, c->tcp_close);
    SET(tcp_skip_in_flight, c->tcp_skip_in_flight);
    SET(file_locks, c->file_locks);
    SET(link_remap, c->link_remap);
    SET(ext_unix_sk, c->ext_unix_sk);
    SET(ext_masters, c->ext_masters);
    SET(orphan_pts_master, c->orphan_pts_master);
    SET(evasive_devices, c->evasive_devices);
    SET(force_irmap, c->force_irmap);
    SET(lazy_pages, c->lazy_pages);
    SET(rst_sibling, c->rst_sibling);
    SET(mntns_compat_mode, c->mntns_compat_mode);
    SET(ghost_limit, c->ghost_limit);
    SET(timeout, c->timeout_s);
}

/* CRIU's options from ours.  The strings stay ours; `external` and `inherit` are arrays of the
 * caller's that must live as long as the request. */
static void fill_opts(Criu__Opts *o, const struct cr_opts *c, char **external, Criu__ExtFd *inherit,
                      Criu__ExtFd **inherit_list)
{
    criu__opts__init(o);
    fill_flags(o, c);
    o->images_dir_fd = c->images_fd;
    SET(pid, c->pid);
    o->has_work_dir_fd = c->work_fd >= 0;
    o->work_dir_fd = c->work_fd;
    o->log_file = (char *)(uintptr_t)c->log_file;
    o->has_log_level = true;
    o->log_level = c->log_level;
    o->root = (char *)(uintptr_t)c->root;
    o->config_file = (char *)(uintptr_t)c->config_file;
    o->has_notify_scripts = o->notify_scripts = true;
    o->has_manage_cgroups_mode = o->has_manage_cgroups = o->manage_cgroups = true;
    o->manage_cgroups_mode = CGROUPS_IGNORE;
    o->external = external;
    for (; c->external && c->external[o->n_external]; o->n_external++)
        external[o->n_external] = (char *)(uintptr_t)c->external[o->n_external];
    o->inherit_fd = inherit_list;
    for (; o->n_inherit_fd < c->n_inherit; o->n_inherit_fd++) {
        Criu__ExtFd *x = inherit_list[o->n_inherit_fd] = &inherit[o->n_inherit_fd];
        criu__ext_fd__init(x);
        x->key = (char *)(uintptr_t)c->inherit[o->n_inherit_fd].key;
        x->fd = c->inherit[o->n_inherit_fd].fd;
    }
}

static enum rc request_with(struct cr_session *s, int type, const struct cr_opts *c,
                            const struct cr_hooks *hooks, uint64_t deadline, Criu__Response **out,
                            struct err *err)
{
    size_t n = 0;
    while (c->external && c->external[n])
        n++;
    CLEANUP(mem_freep) char **external = mem_zalloc((n + 1) * sizeof(void *));
    CLEANUP(mem_freep) Criu__ExtFd *inherit = mem_zalloc((c->n_inherit + 1) * sizeof(*inherit));
    CLEANUP(mem_freep) Criu__ExtFd **list = mem_zalloc((c->n_inherit + 1) * sizeof(void *));
    Criu__Opts o;
    fill_opts(&o, c, external, inherit, list);
    return request(s, type, &o, hooks, deadline, out, err);
}

enum rc cr_dump(struct cr_session *s, const struct cr_opts *opts, const struct cr_hooks *hooks,
                uint64_t deadline, struct err *err)
{
    Criu__Response *r = NULL;
    enum rc rc = request_with(s, TYPE_DUMP, opts, hooks, deadline, &r, err);
    if (r)
        criu__response__free_unpacked(r, NULL);
    return rc;
}

enum rc cr_restore(struct cr_session *s, const struct cr_opts *opts, const struct cr_hooks *hooks,
                   uint64_t deadline, pid_t *out_pid, struct err *err)
{
    Criu__Response *r = NULL;
    enum rc rc = request_with(s, TYPE_RESTORE, opts, hooks, deadline, &r, err);
    if (rc)
        return rc;
    assert(r);
    pid_t pid = r->restore ? r->restore->pid : 0;
    criu__response__free_unpacked(r, NULL);
    if (pid <= 0)
        return err_set(err, RC_IO, "CRIU restored something but did not say what");
    *out_pid = pid;
    return RC_OK;
}

enum rc cr_version(struct cr_session *s, uint64_t deadline, struct cr_facts *out, struct err *err)
{
    Criu__Response *r = NULL;
    enum rc rc = request(s, TYPE_VERSION, NULL, NULL, deadline, &r, err);
    if (rc)
        return rc;
    assert(r);
    const Criu__Version *v = r->version;
    struct cr_facts facts = {0};
    if (v)
        facts =
            (struct cr_facts){v->major_number, v->minor_number, v->has_sublevel ? v->sublevel : 0};
    criu__response__free_unpacked(r, NULL);
    if (!v)
        return err_set(err, RC_IO, "CRIU did not tell its version");
    *out = facts;
    return RC_OK;
}

enum rc cr_check(struct cr_session *s, uint64_t deadline, struct err *err)
{
    Criu__Response *r = NULL;
    enum rc rc = request(s, TYPE_CHECK, NULL, NULL, deadline, &r, err);
    if (r)
        criu__response__free_unpacked(r, NULL);
    return rc;
}

enum rc cr_features(struct cr_session *s, uint64_t deadline, struct cr_features *out,
                    struct err *err)
{
    Criu__Response *r = NULL;
    enum rc rc = request(s, TYPE_FEATURES, NULL, NULL, deadline, &r, err);
    const Criu__Features *f = !rc && r ? r->features : NULL;
    struct cr_features features = {0};
    if (f)
        features = (struct cr_features){.mem_track = f->has_mem_track && f->mem_track,
                                        .lazy_pages = f->has_lazy_pages && f->lazy_pages,
                                        .pidfd_store = f->has_pidfd_store && f->pidfd_store};
    if (r)
        criu__response__free_unpacked(r, NULL);
    if (!rc && !f)
        return err_set(err, RC_IO, "CRIU did not tell its features");
    if (!rc)
        *out = features;
    return rc;
}

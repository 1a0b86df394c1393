#include "entrypoint/ask.h"

#include "assist/talk.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/name.h"
#include "engine/appdir.h"
#include "entrypoint/app_place.h"
#include "entrypoint/marker.h"
#include "entrypoint/mounts.h"
#include "rootfs/apply.h"
#include "rootfs/tmpfs.h"
#include "store/metadata.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIST_MAX ((size_t)64 << 20)
#define ALONE_NS (30 * CLOCK_S) /* for a CRIU without its agent to undo what it has done */
#define PAUSE_NS 10000000

bool ask_possible(const struct settings *s)
{
    struct stat st;
    return s->hash && *s->agent_socket && stat(s->agent_socket, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* ---- asking ---- */

static enum rc call(const char *path, int *out, struct err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(a.sun_path))
        return err_set(err, RC_INVALID, "'%.120s' is too long for a socket", path);
    memcpy(a.sun_path, path, strlen(path) + 1);
    CLEANUP(fd_closep) int sk = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (sk < 0 || connect(sk, (struct sockaddr *)&a, sizeof(a)) < 0)
        return err_sys(err, "connect to '%s'", path);
    *out = fd_steal(&sk);
    return RC_OK;
}

static enum rc request(const struct settings *s, int sk, struct err *err)
{
    char timeout[24];
    const char *const members[] = {"id", s->hash, "timeout_s", timeout, NULL};
    CLEANUP(fd_closep) int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
    CLEANUP(fd_closep) int null = sys_openat(AT_FDCWD, "/dev/null", O_RDWR, 0);
    if (self < 0)
        return err_sys(err, "pidfd_open");
    int fds[TALK_FDS_MAX] = {self};
    for (int i = 0; i < 3; i++)
        fds[i + 1] = fcntl(i, F_GETFD) < 0 ? null : i;
    (void)snprintf(timeout, sizeof(timeout), "%" PRIu64, s->timeout_s);
    return talk_send(sk, TALK_RESTORE, members, fds, TALK_FDS_MAX, err);
}

/* ---- our own files ---- */

static enum rc read_all(int fd, struct buf *out, struct err *err)
{
    char part[16384];
    size_t n = sizeof(part);
    while (n == sizeof(part)) {
        enum rc rc = sys_read_full(fd, part, sizeof(part), &n, err);
        if (rc)
            return rc;
        buf_add(out, part, n);
    }
    return out->overflowed ? err_set(err, RC_TOO_BIG, "the agent sends too much") : RC_OK;
}

static enum rc load_shm(int fd, struct err *err)
{
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, "/dev/shm", O_RDONLY | O_DIRECTORY, 0);
    enum rc rc = dir < 0 ? err_sys(err, "open") : tmpfs_load_stream(fd, dir, NULL, NULL, err);
    return rc ? err_ctx(err, rc, "/dev/shm") : RC_OK;
}

static enum rc apply_deletions(int fd, int root, struct err *err)
{
    CLEANUP(buf_done) struct buf text = {.max = LIST_MAX};
    enum rc rc = read_all(fd, &text, err);
    return rc ? rc : rootfs_apply_deletion_list(buf_str(&text), text.len, root, err);
}

/* The application directory, where there can be one. */
static void write_identity(const struct settings *s, const struct metadata *m)
{
    char hostname[256] = "", now[CLOCK_RFC3339_LEN];
    const char *place = app_place_make();
    CLEANUP(fd_closep)
    int dir = place ? sys_openat(AT_FDCWD, place, O_RDONLY | O_DIRECTORY, 0) : -1;
    (void)gethostname(hostname, sizeof(hostname) - 1);
    clock_rfc3339(now);
    const struct appdir_identity id = {.generation = m->generation + 1,
                                       .checkpoint_id = s->hash,
                                       .restored_at = now,
                                       .hostname = hostname,
                                       .env = environ};
    if (dir >= 0)
        (void)!appdir_write(dir, &id, NULL);
}

static enum rc read_metadata(int fd, struct buf *text, struct metadata *out, struct err *err)
{
    enum rc rc = read_all(fd, text, err);
    return rc ? rc : metadata_parse(buf_str(text), text->len, out, err);
}

/* What the agent has sent along: metadata.json, then those that it names, in this order. */
static enum rc prepare(const struct settings *s, const struct talk *t, struct err *err)
{
    CLEANUP(buf_done) struct buf text = {.max = METADATA_MAX};
    CLEANUP(metadata_done) struct metadata m = {.checkpoint_id = NULL};
    CLEANUP(fd_closep) int root = sys_openat(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0);
    const bool files = talk_text(t, "files"), shm = talk_text(t, "shm"),
               deleted = talk_text(t, "deleted");
    size_t at = 1;
    if (t->n_fds != 1U + files + shm + deleted)
        return err_set(err, RC_CORRUPT, "the agent sends %zu files", t->n_fds);
    if (root < 0)
        return err_sys(err, "open '/'");
    enum rc rc = read_metadata(t->fd[0], &text, &m, err);
    if (!rc && files)
        rc = rootfs_apply_stream(t->fd[at++], root, err);
    if (!rc && shm)
        rc = load_shm(t->fd[at++], err);
    if (!rc && deleted)
        rc = apply_deletions(t->fd[at], root, err);
    if (!rc)
        rc = mounts_make_missing(text.data, text.len, err);
    if (!rc)
        rc = marker_write(s, err);
    if (!rc)
        write_identity(s, &m);
    return rc;
}

/* ---- the conversation ---- */

static enum rc answer_prepare(const struct settings *s, int sk, const struct talk *t,
                              struct err *err)
{
    enum rc rc = prepare(s, t, err);
    const char *const members[] = {"error", err->msg, NULL};
    if (rc)
        (void)!talk_send(sk, TALK_FAILED, members, NULL, 0, NULL);
    return rc ? rc : talk_send(sk, TALK_PREPARED, NULL, NULL, 0, err);
}

/* What it offers: the checkpoint's files.  RC_NOT_FOUND: it has none. */
static enum rc ask_for_offer(const struct settings *s, int sk, uint64_t deadline, struct talk *out,
                             struct err *err)
{
    enum rc rc = request(s, sk, err);
    return rc ? rc : talk_expect(sk, TALK_PREPARE, s->agent_timeout_ns, deadline, out, err);
}

static enum rc take_offer(const struct settings *s, int sk, const struct talk *offer,
                          uint64_t deadline, pid_t *out_pid, int *out_master, struct err *err)
{
    CLEANUP(talk_done) struct talk ready = TALK_INIT;
    CLEANUP(talk_done) struct talk end = TALK_INIT;
    enum rc rc = answer_prepare(s, sk, offer, err);
    if (!rc)
        rc = talk_expect(sk, TALK_READY, s->agent_timeout_ns, deadline, &ready, err);
    if (!rc) /* to somebody who does not listen any more, but has said why */
        (void)!talk_send(sk, TALK_GO, NULL, NULL, 0, NULL);
    if (!rc)
        rc = talk_expect(sk, TALK_RESTORED, s->agent_timeout_ns, deadline, &end, err);
    if (rc)
        return rc;
    *out_pid = (pid_t)talk_number(&end, "pid");
    *out_master = end.n_fds ? fd_steal(&end.fd[0]) : -1;
    if (*out_pid > 1)
        return RC_OK;
    fd_closep(out_master);
    return err_set(err, RC_CORRUPT, "the agent does not say what it has restored");
}

/* Whatever is in our PID namespace but ourselves ends, what is half made too.  A CRIU that has lost
 * its agent has more rights than we may end, but undoes what it has done, and ends. */
static bool be_alone(void)
{
    uint64_t deadline = clock_now() + ALONE_NS;
    for (;;) {
        (void)kill(-1, SIGKILL);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            continue;
        if (kill(-1, 0) < 0 && errno == ESRCH)
            return true;
        if (clock_now() > deadline)
            return false;
        struct timespec pause = {0, PAUSE_NS};
        (void)nanosleep(&pause, NULL);
    }
}

/* Whoever has restored half of it has done so in our PID namespace. */
static enum rc be_rid_of_it(enum rc rc, struct err *err)
{
    if (!be_alone())
        return err_set(err, RC_CONFLICT, "processes of a broken-off restore do not end");
    return rc == RC_NOT_FOUND ? RC_IO : rc;
}

enum rc ask_agent(const struct settings *s, pid_t *out_pid, int *out_master, struct err *err)
{
    CLEANUP(talk_done) struct talk offer = TALK_INIT;
    int fd = -1;
    if (getpid() != 1)
        return err_set(err, RC_UNSUPPORTED,
                       "restore-entrypoint is not the first process of its PID namespace, as with "
                       "hostPID or shareProcessNamespace");
    enum rc rc = name_check_id(s->hash, err);
    if (!rc)
        rc = call(s->agent_socket, &fd, err);
    if (rc)
        return rc;
    uint64_t deadline = s->timeout_s ? clock_now() + s->timeout_s * CLOCK_S : 0;
    rc = ask_for_offer(s, fd, deadline, &offer, err);
    bool absent = rc == RC_NOT_FOUND;
    if (!rc)
        rc = take_offer(s, fd, &offer, deadline, out_pid, out_master, err);
    (void)close(fd); /* what still wants to restore for us learns of it, too */
    return rc && !absent ? be_rid_of_it(rc, err) : rc;
}

#include "agent/caller.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/sys.h"
#include "container/place.h"
#include "container/task.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ID_LEN 64
#define PATIENCE_NS (5 * CLOCK_S) /* for the runtime, which starts a process and then notes it */
#define PAUSE_NS 20000000

void caller_done(struct caller *c)
{
    cri_container_done(&c->container);
}

const char *caller_next_id(const char *at, char *id)
{
    for (size_t n = 0; *at; at += n ? n : 1) {
        n = strspn(at, "0123456789abcdef");
        if (n == ID_LEN && !isalnum((unsigned char)at[n])) {
            memcpy(id, at, ID_LEN);
            id[ID_LEN] = '\0';
            return at + n;
        }
    }
    return NULL;
}

/* Whether this container's first process is the caller. */
static bool is_it(struct cri *cri, const char *id, struct caller *c)
{
    struct cri_container k;
    if (cri_container(cri, id, &k, NULL) != RC_OK)
        return false;
    if (k.state == CRI_RUNNING && k.pid == c->pid) {
        c->container = k;
        return true;
    }
    cri_container_done(&k);
    return false;
}

/* Runtimes put the id into the names of control groups; where they do not, all are asked. */
static enum rc look_for(struct cri *cri, const char *groups, struct caller *c, bool *out_found,
                        struct err *err)
{
    char id[ID_LEN + 1];
    char **all = NULL;
    bool found = false;
    for (const char *at = groups; !found && (at = caller_next_id(at, id));)
        found = is_it(cri, id, c);
    enum rc rc = found ? RC_OK : cri_running(cri, &all, err);
    for (char **p = all; p && *p && !found; p++)
        found = is_it(cri, *p, c);
    cri_ids_free(all);
    *out_found = found;
    return rc;
}

static enum rc find_container(struct cri *cri, int task, struct caller *c, struct err *err)
{
    CLEANUP(buf_done) struct buf groups = BUF_INIT;
    struct task_status status;
    bool found = false;
    uint64_t deadline = clock_now() + PATIENCE_NS;
    enum rc rc = task_status_read(task, &status, err);
    if (!rc)
        rc = task_read(task, "cgroup", &groups, err);
    while (!rc && task_inner_pid(&status) == 1 && status.n_ns_pid > 1) {
        rc = look_for(cri, buf_str(&groups), c, &found, err);
        if (rc || found || clock_now() > deadline)
            break;
        struct timespec pause = {0, PAUSE_NS};
        (void)nanosleep(&pause, NULL);
    }
    if (rc || found)
        return rc;
    return err_set(err, RC_DENIED,
                   "process %d is not the first process of a container: restore-entrypoint must be "
                   "the container's command",
                   (int)c->pid);
}

static enum rc check_labels(const struct cri_container *k, struct err *err)
{
    if (!k->pod_namespace || !k->pod_name || !k->pod_uid)
        return err_set(err, RC_DENIED, "container '%.80s' is no pod's", k->id);
    return RC_OK;
}

enum rc caller_find(struct cri *cri, int sk, int pidfd, struct caller *out, struct err *err)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    CLEANUP(caller_done) struct caller c = {.pid = 0};
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    if (getsockopt(sk, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return err_sys(err, "who is at the other end");
    enum rc rc = place_pid_of(pidfd, &c.pid, err);
    if (!rc && c.pid != peer.pid)
        rc = err_set(err, RC_DENIED, "process %d says that it is process %d", (int)peer.pid,
                     (int)c.pid);
    if (!rc)
        rc = task_open_proc("/proc", &proc, err);
    if (!rc)
        rc = task_open(proc, c.pid, &task, err);
    if (!rc)
        rc = find_container(cri, task, &c, err);
    if (!rc)
        rc = check_labels(&c.container, err);
    if (rc)
        return rc;
    /* All that was asked about its number was about it, since it is still there. */
    if (syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) < 0)
        return err_set(err, RC_NOT_FOUND, "the process has ended");
    *out = c;
    c = (struct caller){.pid = 0};
    return RC_OK;
}

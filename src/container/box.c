#include "container/box.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/box_init.h"
#include "container/proc_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BOX_REAP_MS 2000 /* for those to whom the end of a process in the box is told */

struct box {
    pid_t init; /* 0 once reaped */
    int control;
    bool others; /* were left behind by the main process */
};

/* fork() into new namespaces.  glibc has no wrapper for it; no thread exists to be upset. */
static pid_t fork_into(uint64_t namespaces)
{
    struct clone_args args = {.flags = namespaces, .exit_signal = SIGCHLD};
    return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static enum rc send_request(struct box *b, enum box_message_type type, int32_t value,
                            const void *data, size_t len, struct err *err)
{
    struct box_message head = {.type = (int32_t)type, .value = value};
    struct iovec parts[] = {{&head, sizeof(head)}, {(void *)(uintptr_t)data, len}};
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = len ? 2 : 1};
    if (sendmsg(b->control, &msg, MSG_NOSIGNAL) < 0)
        return err_sys(err, "talk to the box's init");
    return RC_OK;
}

/* One reply; a descriptor that came with it goes to *out_fd, else it is closed. */
static enum rc receive_reply(struct box *b, struct box_message *out, int *out_fd, struct err *err)
{
    CLEANUP(fd_closep) int fd = -1;
    ssize_t n = box_message_receive(b->control, out, NULL, 0, &fd);
    if (n < 0)
        return err_sys(err, "hear from the box's init");
    if (n == 0)
        return err_set(err, RC_CANCELLED, "the box's init was killed");
    if (out_fd)
        *out_fd = fd_steal(&fd);
    return RC_OK;
}

static enum rc box_failure(const struct box_message *m, struct err *err)
{
    errno = m->value;
    return err_sys(err, "%s", box_stage_name(m->stage));
}

enum rc box_create(const struct box_config *config, struct box **out, struct err *err)
{
    int sk[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sk) < 0)
        return err_sys(err, "make the control socket of a box");
    CLEANUP(fd_closep) int ours = sk[0];
    CLEANUP(fd_closep) int theirs = sk[1];

    uint64_t flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC;
    if (config->private_net)
        flags |= CLONE_NEWNET;
    pid_t pid = fork_into(flags);
    if (pid < 0)
        return err_sys(err, "make the namespaces of a box");
    if (pid == 0)
        box_init_main(config, theirs); /* does not return */

    CLEANUP(box_freep) struct box *b = mem_zalloc(sizeof(*b));
    *b = (struct box){.init = pid, .control = fd_steal(&ours)};
    fd_closep(&theirs);

    struct box_message reply;
    enum rc rc = receive_reply(b, &reply, NULL, err);
    if (rc)
        return err_ctx(err, rc, "set up the box");
    if (reply.type != BOX_READY)
        return err_ctx(err, box_failure(&reply, err), "set up the box");
    *out = STEAL(b);
    return RC_OK;
}

static size_t pack_strings(char *const *list, char *to, size_t cap, size_t at)
{
    for (; *list; list++) {
        size_t n = strlen(*list) + 1;
        if (at + n > cap)
            return cap + 1;
        memcpy(to + at, *list, n);
        at += n;
    }
    return at;
}

static int32_t count_strings(char *const *list)
{
    int32_t n = 0;
    while (list[n])
        n++;
    return n;
}

/* A command is sent as its strings, each with its NUL, arguments first; through a file without a
 * name, because a message has a limit (net.core.wmem_max) and an environment has not. */
static enum rc send_command(struct box *b, char *const *argv, char *const *envp, struct err *err)
{
    size_t cap = 4U << 20; /* the kernel's own limit for execve() is less than this */
    CLEANUP(mem_freep) char *packed = mem_alloc(cap);
    size_t len = pack_strings(argv, packed, cap, 0);
    len = len <= cap ? pack_strings(envp, packed, cap, len) : len;
    if (len > cap)
        return err_set(err, RC_TOO_BIG, "command line and environment exceed %zu bytes", cap);

    CLEANUP(fd_closep) int fd = memfd_create("chrek-command", MFD_CLOEXEC);
    if (fd < 0)
        return err_sys(err, "make a memory file");
    enum rc rc = sys_write_all(fd, packed, len, err);
    if (rc)
        return rc;
    struct box_message head = {
        .type = BOX_START, .value = count_strings(argv), .stage = (int32_t)count_strings(envp)};
    if (box_message_send(b->control, &head, fd) < 0)
        return err_sys(err, "talk to the box's init");
    return RC_OK;
}

enum rc box_start(struct box *b, char *const *argv, char *const *envp, pid_t *out_pid,
                  int *out_master, struct err *err)
{
    enum rc rc = send_command(b, argv, envp, err);
    if (rc)
        return rc;
    struct box_message reply;
    CLEANUP(fd_closep) int master = -1;
    rc = receive_reply(b, &reply, &master, err);
    if (rc)
        return rc;
    errno = reply.value;
    if (reply.type != BOX_STARTED && reply.stage == BOX_STAGE_EXEC)
        return err_sys(err, "start '%s'", argv[0]);
    if (reply.type != BOX_STARTED)
        return err_ctx(err, box_failure(&reply, err), "start '%s'", argv[0]);
    *out_pid = reply.value;
    *out_master = fd_steal(&master);
    return RC_OK;
}

enum rc box_adopt(struct box *b, pid_t pid, struct err *err)
{
    return send_request(b, BOX_ADOPT, pid, NULL, 0, err);
}

enum rc box_signal(struct box *b, int sig, struct err *err)
{
    return send_request(b, BOX_SIGNAL, sig, NULL, 0, err);
}

enum rc box_signal_group(struct box *b, int sig, struct err *err)
{
    return send_request(b, BOX_SIGNAL_GROUP, sig, NULL, 0, err);
}

int box_fd(const struct box *b)
{
    return b->control;
}

enum rc box_wait(struct box *b, int *out_status, struct err *err)
{
    struct box_message reply;
    enum rc rc = receive_reply(b, &reply, NULL, err);
    if (rc)
        return rc;
    if (reply.type != BOX_EXITED)
        return err_set(err, RC_IO, "the box's init sent message %d", reply.type);
    *out_status = reply.value;
    b->others = reply.stage != 0;
    return RC_OK;
}

bool box_left_others(const struct box *b)
{
    return b->others;
}

pid_t box_init_pid(const struct box *b)
{
    return b->init;
}

enum rc box_open_dir(const struct box *b, const char *path, int *out_fd, struct err *err)
{
    char root[64];
    (void)snprintf(root, sizeof(root), "/proc/%d/root", (int)b->init);
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, root, O_PATH | O_DIRECTORY, 0);
    if (dir < 0)
        return err_sys(err, "open the box's root");
    int fd = sys_openat(dir, path + (path[0] == '/'), O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return err_sys(err, "open '%s' in the box", path);
    *out_fd = fd;
    return RC_OK;
}

void box_kill(struct box *b)
{
    CLEANUP(mem_freep) struct proc_facts *list = NULL;
    size_t n = 0;
    if (!b->init)
        return;
    /* Each by itself first: a pending SIGKILL holds from the moment that kill() returns, while the
     * kernel's own clearing of the namespace after init's end takes its time. */
    if (proc_in_namespace(b->init, &list, &n, NULL) == RC_OK)
        for (size_t i = 0; i < n; i++)
            if (list[i].pid != b->init)
                (void)kill(list[i].pid, SIGKILL);
    (void)kill(b->init, SIGKILL);
}

/* Whether nothing in the box can ever run again: all that is left of it waits to be reaped. */
static bool nothing_runs(const struct box *b)
{
    CLEANUP(mem_freep) struct proc_facts *list = NULL;
    size_t n = 0;
    if (proc_in_namespace(b->init, &list, &n, NULL))
        return false;
    for (size_t i = 0; i < n; i++)
        if (list[i].pid != b->init && list[i].state != 'Z' && list[i].state != 'X')
            return false;
    return true;
}

/* The kernel ends a PID namespace's first process only when all others are reaped, and a process
 * that somebody put into the box from outside (the CRIU of a checkpoint that was killed since) is
 * reaped outside: by PID 1 of a container perhaps, which often does not reap at all. */
static bool left_to_others(const struct box *b)
{
    CLEANUP(fd_closep) int handle = (int)syscall(SYS_pidfd_open, b->init, 0);
    struct pollfd end = {handle, POLLIN, 0};
    while (handle >= 0 && poll(&end, 1, BOX_REAP_MS) == 0)
        if (nothing_runs(b))
            return true;
    return false;
}

void box_reap(struct box *b)
{
    if (!b->init)
        return;
    (void)kill(b->init, SIGKILL);
    if (!left_to_others(b))
        while (waitpid(b->init, NULL, 0) < 0 && errno == EINTR)
            continue;
    b->init = 0;
}

void box_free(struct box *b)
{
    if (!b)
        return;
    box_reap(b);
    fd_closep(&b->control);
    free(b);
}

void box_freep(struct box **b)
{
    box_free(STEAL(*b));
}

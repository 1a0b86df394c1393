#include "container/box_init.h"

#include "base/compiler.h"
#include "base/sys.h"
#include "container/box_files.h"
#include "container/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define REAPED_MAX 256 /* ends remembered before ADOPT tells which PID matters */

struct init {
    const struct box_config *config;
    int control;
    int children; /* signalfd for SIGCHLD */
    pid_t app;    /* 0 until started or adopted */
    struct {
        pid_t pid;
        int status;
    } reaped[REAPED_MAX]; /* a ring: the last ends of processes that were not the application */
    unsigned n_reaped;
};

static const char *const stage_names[BOX_STAGE_COUNT_] = {
    [BOX_STAGE_PRIVATE_MOUNTS] = "make the mounts private",
    [BOX_STAGE_PROC] = "mount /proc",
    [BOX_STAGE_PTS] = "mount /dev/pts",
    [BOX_STAGE_SHM] = "mount /dev/shm",
    [BOX_STAGE_APP_DIR] = "mount the application directory",
    [BOX_STAGE_LOOPBACK] = "bring the loopback interface up",
    [BOX_STAGE_SIGNALS] = "set up signals",
    [BOX_STAGE_STDIO] = "set up standard input and output",
    [BOX_STAGE_FILTER] = "take io_uring away",
    [BOX_STAGE_COMMAND] = "receive the command",
    [BOX_STAGE_FORK] = "fork",
    [BOX_STAGE_EXEC] = "execute",
};

const char *box_stage_name(int stage)
{
    return stage >= 0 && stage < BOX_STAGE_COUNT_ ? stage_names[stage] : "set up";
}

int box_message_send(int sk, const struct box_message *m, int fd)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec io = {(void *)(uintptr_t)m, sizeof(*m)};
    struct msghdr msg = {.msg_iov = &io, .msg_iovlen = 1};
    if (fd >= 0) {
        msg.msg_control = control.space;
        msg.msg_controllen = sizeof(control.space);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    return sendmsg(sk, &msg, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

ssize_t box_message_receive(int sk, struct box_message *m, void *data, size_t cap, int *out_fd)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec parts[] = {{m, sizeof(*m)}, {data, cap}};
    struct msghdr msg = {.msg_iov = parts,
                         .msg_iovlen = cap ? 2 : 1,
                         .msg_control = control.space,
                         .msg_controllen = sizeof(control.space)};
    ssize_t n;
    do
        n = recvmsg(sk, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    *out_fd = -1;
    if (n < 0 && errno == ECONNRESET)
        return 0;
    if (n <= 0)
        return n;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(out_fd, CMSG_DATA(c), sizeof(int));
    if ((size_t)n >= sizeof(*m))
        return n;
    fd_closep(out_fd);
    errno = EPROTO;
    return -1;
}

static void tell(const struct init *in, enum box_message_type type, int32_t value, int32_t stage,
                 int fd)
{
    struct box_message m = {.type = (int32_t)type, .value = value, .stage = stage};
    if (box_message_send(in->control, &m, fd) < 0)
        _exit(125); /* our maker is gone, and we are nothing without it */
}

static void watch_children(struct init *in)
{
    sigset_t all, child;
    (void)sigfillset(&all);
    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);
    in->children = -1;
    if (sigprocmask(SIG_SETMASK, &all, NULL) == 0)
        in->children = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int take_streams(const struct init *in, int slave)
{
    for (int i = 0; i < 3; i++) {
        CLEANUP(fd_closep) int null = -1;
        int from = slave >= 0 ? slave : in->config->stdio[i];
        if (from < 0)
            from = null = sys_openat(AT_FDCWD, "/dev/null", i ? O_WRONLY : O_RDONLY, 0);
        if (from < 0 || dup2(from, i) < 0)
            return -1;
    }
    return 0;
}

/* The application's side of box_start(): on failure tell why through `report` and die. */
static _Noreturn void run_command(const struct init *in, int slave, char **argv, char **envp,
                                  int report)
{
    (void)sigprocmask(SIG_SETMASK, &in->config->mask, NULL);
    (void)setsid();
    struct box_message m = {.type = BOX_FAILED, .stage = BOX_STAGE_STDIO};
    if (argv[0] && (slave < 0 || ioctl(slave, TIOCSCTTY, 0) == 0) && take_streams(in, slave) == 0) {
        m.stage = BOX_STAGE_FILTER;
        if (!in->config->no_io_uring || filter_io_uring() == 0) {
            m.stage = BOX_STAGE_EXEC;
            environ = envp;
            (void)execvp(argv[0], argv);
        }
    }
    m.value = errno;
    (void)!write(report, &m, sizeof(m));
    _exit(127);
}

/* Cut `text` (each string with its NUL) into NULL-terminated lists of the expected lengths. */
static char **cut_strings(char *text, size_t len, int32_t n_args, int32_t n_vars, char ***out_envp)
{
    if (n_args < 1 || n_vars < 0 || n_args > (1 << 20) || n_vars > (1 << 20))
        return NULL;
    size_t slots = (size_t)n_args + (size_t)n_vars + 2;
    char **list = calloc(slots, sizeof(*list));
    size_t at = 0, slot = 0;
    for (int32_t i = 0; list && i < n_args + n_vars; i++) {
        size_t n = at < len ? strnlen(text + at, len - at) : 0;
        if (at >= len || at + n >= len) {
            free(list);
            return NULL;
        }
        slot += (i == n_args); /* leaves the NULL that ends the arguments */
        list[slot++] = text + at;
        at += n + 1;
    }
    if (list)
        *out_envp = list + n_args + 1;
    return list;
}

/* Wait for the execve() of `pid`: `report` is closed by it, or carries what failed. */
static bool command_runs(int report, struct box_message *m)
{
    ssize_t n;
    do
        n = read(report, m, sizeof(*m));
    while (n < 0 && errno == EINTR);
    return n == 0;
}

static void start_command(struct init *in, char **argv, char **envp)
{
    CLEANUP(fd_closep) int master = -1;
    CLEANUP(fd_closep) int slave = -1;
    int report[2];
    if ((in->config->tty && box_open_pty(&in->config->window, &master, &slave) < 0) ||
        pipe2(report, O_CLOEXEC) < 0)
        return tell(in, BOX_FAILED, errno, BOX_STAGE_STDIO, -1);

    box_skip_pids(BOX_FIRST_PID);
    pid_t pid = fork();
    if (pid == 0)
        run_command(in, slave, argv, envp, report[1]);
    int fork_errno = errno;
    (void)close(report[1]);
    CLEANUP(fd_closep) int answer = report[0];
    if (pid < 0)
        return tell(in, BOX_FAILED, fork_errno, BOX_STAGE_FORK, -1);

    struct box_message failed;
    if (!command_runs(answer, &failed))
        return tell(in, BOX_FAILED, failed.value, failed.stage, -1);
    in->app = pid;
    for (int i = 0; i < 3; i++) /* the pipes must end with the application, not with us */
        if (in->config->stdio[i] > 2)
            (void)close(in->config->stdio[i]);
    tell(in, BOX_STARTED, pid, 0, master);
}

static void on_start(struct init *in, const struct box_message *m, int file)
{
    struct stat st;
    if (file < 0 || fstat(file, &st) < 0 || st.st_size <= 0)
        return tell(in, BOX_FAILED, EPROTO, BOX_STAGE_COMMAND, -1);
    size_t len = (size_t)st.st_size;
    char *text = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    if (text == MAP_FAILED)
        return tell(in, BOX_FAILED, errno, BOX_STAGE_COMMAND, -1);
    char **envp = NULL;
    char **argv = cut_strings(text, len, m->value, m->stage, &envp);
    if (argv)
        start_command(in, argv, envp);
    else
        tell(in, BOX_FAILED, EPROTO, BOX_STAGE_COMMAND, -1);
    free(argv);
    (void)munmap(text, len);
}

/* Report the application's end and go; the kernel takes everything else in the box with us. */
static _Noreturn void finish(const struct init *in, int status)
{
    while (waitpid(-1, NULL, WNOHANG) > 0)
        continue;
    bool others = kill(-1, 0) == 0; /* all but us: a daemon that has left its starter, say */
    tell(in, BOX_EXITED, status, others, -1);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static void on_adopt(struct init *in, pid_t pid)
{
    in->app = pid;
    unsigned known = in->n_reaped < REAPED_MAX ? in->n_reaped : REAPED_MAX;
    for (unsigned i = 0; i < known; i++)
        if (in->reaped[i].pid == pid)
            finish(in, in->reaped[i].status);
}

static void reap(struct init *in)
{
    struct signalfd_siginfo drained;
    while (read(in->children, &drained, sizeof(drained)) > 0)
        continue;
    int status = 0;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        if (pid == in->app)
            finish(in, status);
        unsigned slot = in->n_reaped++ % REAPED_MAX;
        in->reaped[slot].pid = pid;
        in->reaped[slot].status = status;
    }
}

static void serve(struct init *in)
{
    struct box_message m;
    CLEANUP(fd_closep) int fd = -1;
    if (box_message_receive(in->control, &m, NULL, 0, &fd) <= 0)
        _exit(125);
    if (m.type == BOX_START)
        on_start(in, &m, fd);
    else if (m.type == BOX_ADOPT)
        on_adopt(in, m.value);
    else if (m.type == BOX_SIGNAL_GROUP && in->app > 0 && kill(-in->app, m.value) == 0)
        return;
    else if ((m.type == BOX_SIGNAL || m.type == BOX_SIGNAL_GROUP) && in->app > 0)
        (void)kill(in->app, m.value);
}

_Noreturn void box_init_main(const struct box_config *config, int control)
{
    struct init in = {.config = config, .control = control};
    watch_children(&in);
    if (in.children < 0)
        tell(&in, BOX_FAILED, errno, BOX_STAGE_SIGNALS, -1);
    enum box_stage stage = BOX_STAGE_PRIVATE_MOUNTS;
    if (in.children < 0 || box_mount_files(config, &stage) < 0 ||
        box_sort_descriptors(config, control, in.children) < 0) {
        tell(&in, BOX_FAILED, errno, (int32_t)stage, -1);
        _exit(125);
    }
    tell(&in, BOX_READY, 0, 0, -1);
    for (;;) {
        struct pollfd wait[] = {{in.control, POLLIN, 0}, {in.children, POLLIN, 0}};
        if (poll(wait, 2, -1) < 0 && errno != EINTR)
            _exit(125);
        if (wait[1].revents)
            reap(&in);
        if (wait[0].revents)
            serve(&in);
    }
}

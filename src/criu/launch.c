/* How CRIU gets into the namespaces of a tree.
 *
 * A joined PID namespace counts only for children, so there are two processes: a scout, our child,
 * enters the namespaces and clones CRIU with CLONE_PARENT, which makes CRIU our own child, to be
 * waited for and killed by us; then the scout ends, or stays to watch: when we are killed, the end
 * of its pipe tells it, and a CRIU that hangs is ended, so that the tree which it holds goes on;
 * one that works, as seen by the time and bytes that it takes, has the time that the work had.
 *
 * The conversation's socket pair is made by CRIU's own process, before the exec: CRIU opens
 * /proc/<pid of the socket's maker>/fd/<images_dir_fd>, and seen from inside another PID namespace
 * we have no pid.  Our end comes back over a bootstrap socket.
 *
 * The program is executed through a descriptor of its folder's parent, because where the tree lives
 * there may be no such path: tools/criu/launch.c finds its loader and libraries from there, too.
 */
#include "criu/launch.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/sys.h"
#include "criu/facts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIRST_PASSED 64 /* CRIU's number of pass_fds[0]; above what swrk opens by itself */
#define SWRK_SOCKET 63
#define FACTS 62
#define LET_GO_NS (15 * CLOCK_S) /* for a CRIU whose parent was killed and that does nothing */

enum stage {
    STAGE_ENTER = 1,
    STAGE_CLONE,
    STAGE_SOCKET,
    STAGE_DESCRIPTORS,
    STAGE_EXEC,
    STAGE_CLONED,
    STAGE_RUNS
};

static const char *const stage_text[] = {
    [STAGE_ENTER] = "enter the namespaces of the processes",
    [STAGE_CLONE] = "make a process for CRIU",
    [STAGE_SOCKET] = "make a socket for CRIU",
    [STAGE_DESCRIPTORS] = "give CRIU its descriptors",
    [STAGE_EXEC] = "execute",
};

/* What the children say over the bootstrap socket. */
struct report {
    int32_t stage;
    int32_t value; /* errno, or for STAGE_CLONED the pid */
};

int cr_session_fd(size_t i)
{
    return FIRST_PASSED + (int)i;
}

static void send_report(int sk, enum stage stage, int value, int fd)
{
    struct report r = {(int32_t)stage, value};
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec io = {&r, sizeof(r)};
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
    (void)sendmsg(sk, &msg, MSG_NOSIGNAL);
}

/* Give `fd` the number `to`, without close-on-exec. */
static int place(int fd, int to)
{
    return fd == to ? fcntl(fd, F_SETFD, 0) : dup2(fd, to);
}

/* Move a descriptor out of the range that is about to be filled. */
static int move_up(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, FIRST_PASSED + CR_PASS_MAX);
}

/* CRIU raises it, too, but the numbers of what it is given are above what may be allowed now. */
static void raise_limit(void)
{
    struct rlimit r;
    rlim_t want = FIRST_PASSED + 4 * CR_PASS_MAX;
    if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur >= want)
        return;
    r.rlim_cur = want;
    r.rlim_max = r.rlim_max < want ? want : r.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &r);
}

static int place_descriptors(const struct cr_launch *l, int socket, int output)
{
    int passed[CR_PASS_MAX];
    for (size_t i = 0; i < l->n_pass; i++)
        if ((passed[i] = move_up(l->pass_fds[i])) < 0)
            return -1;
    int sk = move_up(socket), out = move_up(output);
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (sk < 0 || out < 0 || null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        return -1;
    for (size_t i = 0; i < l->n_pass; i++)
        if (place(passed[i], cr_session_fd(i)) < 0)
            return -1;
    return place(sk, SWRK_SOCKET);
}

/* A program, and how it is reached without its path. */
struct program {
    int folder; /* the parent of the folder it lies in; -1: it has none */
    char below[PATH_MAX];
    int facts; /* the directory of what is known; -1: none */
};

static void find_program(const char *criu, struct program *out)
{
    char path[PATH_MAX];
    char *slash = realpath(criu, path) ? strrchr(path, '/') : NULL;
    while (slash && slash > path && *--slash != '/')
        continue;
    out->folder = -1;
    if (!slash || slash == path)
        return;
    *slash = '\0';
    (void)snprintf(out->below, sizeof(out->below), "%s", slash + 1);
    out->folder = sys_openat(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
}

static void execute(const struct program *p, int lowest, char **argv, char **env)
{
    char path[PATH_MAX + 32];
    int folder = p->folder < 0 ? -1 : fcntl(p->folder, F_DUPFD, lowest); /* CRIU keeps it */
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", folder, p->below);
    if (folder >= 0)
        (void)execve(path, argv, env);
    fd_closep(&folder);
}

/* What is sent to everybody around, as when a service is stopped, is not meant to end a dump. */
static void ignore_signals(void)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    for (size_t i = 0; i < ARRAY_LEN(signals); i++)
        (void)sigaction(signals[i], &ignore, NULL);
}

static _Noreturn void become_criu(const struct cr_launch *l, const struct program *program,
                                  char **env, int bootstrap, int output)
{
    int sv[2];
    sigset_t none;
    if (l->deaf)
        ignore_signals();
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setsid(); /* signals from a terminal are none of CRIU's business */
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0) {
        send_report(bootstrap, STAGE_SOCKET, errno, -1);
        _exit(127);
    }
    raise_limit();
    int boot = move_up(bootstrap);
    if (boot < 0) {
        send_report(bootstrap, STAGE_DESCRIPTORS, errno, -1);
        _exit(127);
    }
    send_report(boot, STAGE_RUNS, 0, sv[0]);
    (void)close(sv[0]);
    char name[] = "criu", verb[] = "swrk", number[12], no_files[] = "--no-default-config";
    (void)snprintf(number, sizeof(number), "%d", SWRK_SOCKET);
    if (place_descriptors(l, sv[1], output) >= 0) {
        /* Everything that is not CRIU's has close-on-exec; the bootstrap socket among it: its end
         * tells our parent that the exec has happened. */
        (void)close_range(3, SWRK_SOCKET - 1, CLOSE_RANGE_CLOEXEC);
        (void)close_range((unsigned)cr_session_fd(l->n_pass), ~0U, CLOSE_RANGE_CLOEXEC);
        if (program->facts >= 0)
            (void)dup2(program->facts, FACTS);
        /* /etc/criu and ~/.criu are for who runs it by hand. */
        char *argv[] = {name, no_files, verb, number, NULL};
        if (l->inside) {
            (void)execve(l->inside, argv, env);
        } else {
            execute(program, cr_session_fd(l->n_pass), argv, env);
            (void)execve(l->criu, argv, env); /* as seen from there */
        }
        send_report(boot, STAGE_EXEC, errno, -1);
    } else {
        send_report(boot, STAGE_DESCRIPTORS, errno, -1);
    }
    _exit(127);
}

/* Keep some descriptors, ascending, and close all others: among them are locks, and pipes that
 * somebody waits for the end of. */
static void keep_only(int *fds, size_t n)
{
    unsigned next = 0;
    for (size_t i = 1; i < n; i++)
        for (size_t k = i; k > 0 && fds[k] < fds[k - 1]; k--) {
            int swap = fds[k];
            fds[k] = fds[k - 1];
            fds[k - 1] = swap;
        }
    for (size_t i = 0; i < n; i++) {
        if (fds[i] < 0)
            continue;
        if ((unsigned)fds[i] > next)
            (void)close_range(next, (unsigned)fds[i] - 1, 0);
        next = (unsigned)fds[i] + 1;
    }
    (void)close_range(next, ~0U, 0);
}

/* What a watch sees of its CRIU, which is not its child. */
struct seen {
    int pidfd, proc; /* proc: of the PID namespace that `pid` is of */
    pid_t pid;
};

static size_t read_text(const struct seen *s, const char *name, char *text, size_t size)
{
    char path[32];
    (void)snprintf(path, sizeof(path), "%d/%s", (int)s->pid, name);
    CLEANUP(fd_closep) int fd = sys_openat(s->proc, path, O_RDONLY, 0);
    ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);
    text[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

/* What it has done so far, in time and bytes: any more of it is more. */
static uint64_t work_done(const struct seen *s)
{
    char text[1024];
    unsigned long long time[4] = {0}, bytes[2] = {0};
    (void)read_text(s, "stat", text, sizeof(text));
    const char *at = strrchr(text, ')'); /* the name before it may hold anything */
    if (at)
        (void)sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %llu %llu",
                     &time[0], &time[1], &time[2], &time[3]);
    if (read_text(s, "io", text, sizeof(text)))
        (void)sscanf(text, "rchar: %llu wchar: %llu", &bytes[0], &bytes[1]);
    return time[0] + time[1] + time[2] + time[3] + bytes[0] + bytes[1];
}

/* Wait for its end for as long as it works, but not for ever.  False: it hangs. */
static bool ends(const struct seen *s, uint64_t patience, uint64_t until)
{
    uint64_t done = work_done(s), since = clock_now(), tick = patience / 10;
    until = until && until < since + patience ? since + patience : until;
    for (;;) {
        struct pollfd end = {s->pidfd, POLLIN, 0};
        int n = poll(&end, 1, clock_poll_ms(clock_now() + tick));
        uint64_t now = clock_now(), more = work_done(s);
        if (n > 0 || (n < 0 && errno != EINTR))
            return true;
        if (more != done)
            since = now;
        done = more;
        if (now > since + patience || (until && now > until))
            return false;
    }
}

/* alive   a pipe that hangs up when our parent has ended */
static _Noreturn void watch(const struct cr_launch *l, int alive, const struct seen *s)
{
    int fds[] = {alive, s->pidfd, s->proc};
    struct pollfd wait[] = {{s->pidfd, POLLIN, 0}, {alive, 0, 0}};
    sigset_t all;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    (void)setsid();
    keep_only(fds, ARRAY_LEN(fds));
    while (poll(wait, 2, -1) < 0 && errno == EINTR)
        continue;
    /* By its socket it learns that nobody wants the dump any more, once it is not stopped. */
    (void)syscall(SYS_pidfd_send_signal, s->pidfd, SIGCONT, NULL, 0);
    if (!ends(s, l->patience_ns ? l->patience_ns : LET_GO_NS, l->until))
        (void)syscall(SYS_pidfd_send_signal, s->pidfd, SIGKILL, NULL, 0);
    _exit(0);
}

static _Noreturn void scout(const struct cr_launch *l, const struct program *program, char **env,
                            int bootstrap, int output, const int *alive)
{
    int pidfd = -1;
    int proc = l->watched ? open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int entered = l->enter ? l->enter(l->enter_arg) : 0;
    if (entered < 0) {
        send_report(bootstrap, STAGE_ENTER, -entered, -1);
        _exit(1);
    }
    struct clone_args args = {.flags = CLONE_PARENT | CLONE_PIDFD,
                              .pidfd = (uint64_t)(uintptr_t)&pidfd,
                              .exit_signal = 0};
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    if (pid == 0)
        become_criu(l, program, env, bootstrap, output);
    send_report(bootstrap, pid < 0 ? STAGE_CLONE : STAGE_CLONED, pid < 0 ? errno : pid, -1);
    if (pid > 0 && l->watched) {
        (void)close(alive[1]);
        watch(l, alive[0], &(struct seen){pidfd, proc, pid});
    }
    _exit(0);
}

static enum rc failed_exec(const char *criu, struct err *err)
{
    int why = errno;
    return err_set(err, rc_from_errno(why),
                   "execute '%.200s': %s; --criu or $CHREK_CRIU names a criu program, 4.2 or newer",
                   criu, strerrordesc_np(why));
}

/* Listen until the exec has closed the bootstrap socket, or a stage has failed. */
static enum rc hear_reports(int bootstrap, const struct cr_launch *l, struct cr_process *p,
                            struct err *err)
{
    for (;;) {
        struct report r;
        union {
            char space[CMSG_SPACE(sizeof(int))];
            struct cmsghdr align;
        } control = {{0}};
        struct iovec io = {&r, sizeof(r)};
        struct msghdr msg = {.msg_iov = &io,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof(control.space)};
        struct pollfd wait = {bootstrap, POLLIN, 0};
        int ready = poll(&wait, 1, clock_poll_ms(l->deadline));
        if (ready == 0)
            return err_set(err, RC_TIMEOUT, "'%s' was not executed in time", l->criu);
        if (ready < 0 && errno == EINTR)
            continue;
        ssize_t n = recvmsg(bootstrap, &msg, MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(err, "start CRIU");
        if (n != (ssize_t)sizeof(r))
            return RC_OK;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        if (c && c->cmsg_type == SCM_RIGHTS)
            memcpy(&p->socket, CMSG_DATA(c), sizeof(int));
        if (r.stage == STAGE_CLONED) {
            p->pid = r.value;
        } else if (r.stage != STAGE_RUNS) {
            errno = r.value;
            if (r.stage == STAGE_EXEC)
                return failed_exec(l->criu, err);
            if (r.stage == STAGE_DESCRIPTORS &&
                (errno == EINVAL || errno == EMFILE || errno == EBADF))
                return err_set(err, RC_IO,
                               "the limit of open files is too low for CRIU; raise it: ulimit -n "
                               "1024, or LimitNOFILE= of the unit");
            return err_sys(err, "%s", stage_text[r.stage]);
        }
    }
}

/* An environment and what the caller adds; the caller's (free), the strings are borrowed.  Options
 * for CRIU come from us alone: one from outside may make it wait for ever with the tree frozen. */
static char **make_env(char *const *ours, const char *more, const char *facts)
{
    static const char options[] = "CRIU_CONFIG_FILE=", known[] = CR_FACTS_ENV "=";
    size_t all = 0, n = 0;
    while (ours[all])
        all++;
    char **env = mem_zalloc((all + 3) * sizeof(*env));
    for (size_t i = 0; i < all; i++)
        if (strncmp(ours[i], options, sizeof(options) - 1) != 0 &&
            strncmp(ours[i], known, sizeof(known) - 1) != 0)
            env[n++] = ours[i];
    if (more)
        memcpy(&env[n++], &more, sizeof(more)); /* execve() does not change it */
    if (facts)
        memcpy(&env[n], &facts, sizeof(facts));
    return env;
}

/* It ends by itself, when CRIU has or was never there. */
static void end_watch(struct cr_process *p)
{
    fd_closep(&p->alive);
    while (p->watch > 0 && waitpid(p->watch, NULL, 0) < 0 && errno == EINTR)
        continue;
    p->watch = 0;
}

enum rc cr_process_start(const struct cr_launch *launch, struct cr_process *out, struct err *err)
{
    struct cr_process p = {.pidfd = -1, .socket = -1, .output = -1, .alive = -1};
    int sv[2], alive[2];
    char *nothing[] = {NULL};
    if (launch->n_pass > CR_PASS_MAX)
        return err_set(err, RC_TOO_BIG, "%zu descriptors for CRIU", launch->n_pass);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
        return err_sys(err, "make a socket for CRIU");
    CLEANUP(fd_closep) int ours = sv[0];
    CLEANUP(fd_closep) int theirs = sv[1];
    CLEANUP(fd_closep) int output = memfd_create("criu-output", MFD_CLOEXEC);
    if (output < 0)
        return err_sys(err, "make a memory file");
    if (pipe2(alive, O_CLOEXEC) < 0)
        return err_sys(err, "make a pipe");
    CLEANUP(fd_closep) int seen = alive[0];
    p.alive = alive[1];

    char name[CR_FACTS_NAME];
    struct program program = {.folder = -1, .facts = -1};
    if (!launch->inside) {
        find_program(launch->criu, &program);
        program.facts = cr_facts_open(CR_FACTS_DIR, launch->criu, name);
    }
    CLEANUP(fd_closep) int folder = program.folder;
    CLEANUP(fd_closep) int facts = program.facts;
    CLEANUP(mem_freep)
    char *known = facts < 0 ? NULL : mem_asprintf(CR_FACTS_ENV "=%d:%s", FACTS, name);
    CLEANUP(mem_freep)
    char **env = make_env(launch->inside ? nothing : environ, launch->env, known);
    pid_t first = fork();
    if (first < 0) {
        enum rc failed = err_sys(err, "fork");
        fd_closep(&p.alive);
        return failed;
    }
    if (first == 0)
        scout(launch, &program, env, theirs, output, alive);
    fd_closep(&theirs);
    p.watch = first;
    enum rc rc = hear_reports(ours, launch, &p, err);
    if (rc == RC_TIMEOUT)
        (void)kill(first, SIGKILL);
    if (!launch->watched)
        end_watch(&p);
    if (!rc && (p.pid <= 0 || p.socket < 0))
        rc = err_set(err, RC_IO, "CRIU ended before it began");
    if (!rc && (p.pidfd = (int)syscall(SYS_pidfd_open, p.pid, 0)) < 0)
        rc = err_sys(err, "pidfd_open");
    p.output = fd_steal(&output);
    if (rc) {
        cr_process_end(&p, false);
        return rc;
    }
    *out = p;
    return RC_OK;
}

/* The session of a process, from /proc; 0 if it cannot be told. */
static pid_t session_of(const char *pid)
{
    char path[32], text[512];
    (void)snprintf(path, sizeof(path), "/proc/%.10s/stat", pid);
    CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, path, O_RDONLY, 0);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
    int session = 0;
    if (n <= 0)
        return 0;
    text[n] = '\0';
    const char *at = strrchr(text, ')'); /* the name before it may hold anything */
    return at && sscanf(at, ") %*c %*d %*d %d", &session) == 1 ? session : 0;
}

/* CRIU leads a session of its own; what it has forked is in it. */
static void kill_session(pid_t leader)
{
    DIR *dir = opendir("/proc");
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        uint64_t pid = 0;
        if (num_parse_u64(e->d_name, 1, INT_MAX, &pid, NULL) == RC_OK && (pid_t)pid != leader &&
            session_of(e->d_name) == leader)
            (void)kill((pid_t)pid, SIGKILL);
    }
    if (dir)
        (void)closedir(dir);
}

void cr_process_end(struct cr_process *p, bool helpers)
{
    fd_closep(&p->socket); /* a CRIU that is dumping lets the tree go on when it sees this */
    if (p->pid > 0) {
        (void)kill(p->pid, SIGKILL);
        if (helpers) /* before it is reaped: its number is its session's */
            kill_session(p->pid);
        while (waitpid(p->pid, NULL, __WALL) < 0 && errno == EINTR)
            continue;
    }
    end_watch(p);
    fd_closep(&p->pidfd);
    fd_closep(&p->output);
    p->pid = 0;
}

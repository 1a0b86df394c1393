#include "engine/supervise.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/box.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#define STREAM_BUF 65536
#define BEHIND_MS 250    /* nobody tells a job that goes on that it is in the foreground now */
#define STREAM_STEP 4096 /* what poll() promises a pipe to take without blocking (PIPE_BUF) */

/* One direction of copying.  `from` < 0: finished; bytes may still be pending. */
struct stream {
    int from, to;
    int number; /* 0 input, 1 output, 2 error: for the output hook and to know what is ours */
    bool gone;  /* nobody takes the bytes any more */
    size_t at, len;
    char buf[STREAM_BUF];
};

struct supervisor {
    struct supervise_hooks hooks;
    bool pty, raw;
    bool terminal; /* standard input is one */
    bool behind;   /* ... and another job has it */
    bool known;    /* termios is valid */
    int master;    /* of the pty, -1 until supervise_take_master() */
    int app[3];    /* the application's ends, -1 when given away */
    int signals;
    int watched;
    struct stream in, out, err;
    sigset_t mask;
    struct termios termios; /* as we were given it */
    uint64_t next_tick;
};

static const int passed_on[] = {SIGHUP,  SIGINT,  SIGQUIT,   SIGUSR1, SIGUSR2, SIGALRM,
                                SIGTERM, SIGCONT, SIGTSTP,   SIGURG,  SIGXCPU, SIGXFSZ,
                                SIGPROF, SIGIO,   SIGVTALRM, SIGPWR,  SIGWINCH};

bool supervise_on_terminal(void)
{
    return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp();
}

/* Whether another job has our terminal: to read it would stop us. */
static bool in_background(void)
{
    pid_t front = tcgetpgrp(STDIN_FILENO);
    return front >= 0 && front != getpgrp();
}

struct winsize supervise_window(void)
{
    struct winsize w = {0};
    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &w) < 0)
        return (struct winsize){0};
    return w;
}

static int take_signals(struct supervisor *s)
{
    sigset_t set;
    (void)sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_LEN(passed_on); i++)
        (void)sigaddset(&set, passed_on[i]);
    for (int sig = SIGRTMIN; sig <= SIGRTMAX; sig++)
        (void)sigaddset(&set, sig);
    (void)sigaddset(&set, SIGPIPE); /* a write that nobody reads must be an error, not our end */
    sigset_t blocked = set; /* in the background a read or a setting fails instead of stopping us */
    (void)sigaddset(&blocked, SIGTTIN);
    (void)sigaddset(&blocked, SIGTTOU);
    if (sigprocmask(SIG_BLOCK, &blocked, &s->mask) < 0)
        return -1;
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Standard output and error are one open file description: `2>&1`. */
static bool output_is_shared(void)
{
    pid_t self = getpid();
    long r = syscall(SYS_kcmp, self, self, KCMP_FILE, (unsigned long)STDOUT_FILENO,
                     (unsigned long)STDERR_FILENO);
    if (r >= 0)
        return r == 0;
    struct stat a, b;
    return fstat(STDOUT_FILENO, &a) == 0 && fstat(STDERR_FILENO, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

static enum rc make_pipe(int *out_read, int *out_write, struct err *err)
{
    int p[2];
    if (pipe2(p, O_CLOEXEC) < 0)
        return err_sys(err, "make a pipe");
    *out_read = p[0];
    *out_write = p[1];
    return RC_OK;
}

static enum rc make_pipes(struct supervisor *s, struct err *err)
{
    enum rc rc = make_pipe(&s->app[0], &s->in.to, err);
    if (rc)
        return rc;
    s->in.from = STDIN_FILENO;
    rc = make_pipe(&s->out.from, &s->app[1], err);
    if (rc)
        return rc;
    if (output_is_shared())
        s->app[2] = s->app[1];
    else
        rc = make_pipe(&s->err.from, &s->app[2], err);
    if (rc)
        return rc;
    if (fcntl(s->in.to, F_SETFL, O_NONBLOCK) < 0)
        return err_sys(err, "set up a pipe");
    return RC_OK;
}

enum rc supervise_new(bool pty, const struct supervise_hooks *hooks, struct supervisor **out,
                      struct err *err)
{
    CLEANUP(supervise_freep) struct supervisor *s = mem_zalloc(sizeof(*s));
    *s = (struct supervisor){.hooks = *hooks,
                             .pty = pty,
                             .terminal = isatty(STDIN_FILENO),
                             .master = -1,
                             .app = {-1, -1, -1},
                             .watched = -1,
                             .in = {.from = -1, .to = -1, .number = 0},
                             .out = {.from = -1, .to = STDOUT_FILENO, .number = 1},
                             .err = {.from = -1, .to = STDERR_FILENO, .number = 2}};
    s->signals = take_signals(s);
    if (s->signals < 0)
        return err_sys(err, "take over signals");
    enum rc rc = pty ? RC_OK : make_pipes(s, err);
    if (rc)
        return rc;
    *out = STEAL(s);
    return RC_OK;
}

const int *supervise_app_streams(const struct supervisor *s)
{
    return s->app;
}

const sigset_t *supervise_signal_mask(const struct supervisor *s)
{
    return &s->mask;
}

void supervise_streams_given(struct supervisor *s)
{
    if (s->app[2] == s->app[1])
        s->app[2] = -1;
    for (int i = 0; i < 3; i++)
        fd_closep(&s->app[i]);
}

static void make_raw(struct supervisor *s)
{
    if (!supervise_on_terminal() || (!s->known && tcgetattr(STDIN_FILENO, &s->termios) < 0))
        return;
    s->known = true;
    struct termios raw = s->termios;
    cfmakeraw(&raw);
    s->raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

static void leave_raw(struct supervisor *s, int when)
{
    if (s->raw && !in_background())
        (void)tcsetattr(STDIN_FILENO, when, &s->termios);
    s->raw = false;
}

static void follow_window(const struct supervisor *s)
{
    struct winsize w = supervise_window();
    if (s->master >= 0 && w.ws_row)
        (void)ioctl(s->master, TIOCSWINSZ, &w);
}

/* Notice that the terminal was taken from us, or given back. */
static void look_at_terminal(struct supervisor *s)
{
    bool was = s->behind;
    s->behind = s->terminal && s->in.from >= 0 && in_background();
    if (s->behind)
        s->raw = false; /* its settings are the other job's */
    else if (was && s->master >= 0) {
        make_raw(s);
        follow_window(s);
    }
}

void supervise_take_master(struct supervisor *s, int master)
{
    s->master = master;
    (void)fcntl(master, F_SETFL, O_NONBLOCK);
    s->in.from = STDIN_FILENO;
    s->in.to = master;
    s->out.from = master;
    make_raw(s);
    follow_window(s); /* a restored terminal has the size of the one before */
}

void supervise_redraw(const struct supervisor *s)
{
    struct winsize w = supervise_window(), other = w;
    if (s->master < 0 || !w.ws_row)
        return;
    other.ws_col++; /* the kernel tells of a size only when it is another */
    (void)ioctl(s->master, TIOCSWINSZ, &other);
    (void)ioctl(s->master, TIOCSWINSZ, &w);
}

void supervise_watch(struct supervisor *s, int fd)
{
    s->watched = fd;
}

void supervise_set_tick(struct supervisor *s, unsigned tick_ms)
{
    s->hooks.tick_ms = tick_ms;
    s->next_tick = clock_now();
}

static bool is_ours(const struct supervisor *s, const struct stream *st)
{
    return st->number ? st->from != s->master : st->to != s->master;
}

/* Input is over: the application sees the end of its pipe, or a Ctrl-D on its terminal. */
static void end_input(struct supervisor *s)
{
    struct stream *st = &s->in;
    st->from = -1;
    if (st->len || st->to < 0)
        return;
    if (s->pty) {
        struct termios t;
        char eof = 4;
        if (tcgetattr(s->master, &t) == 0 && (t.c_lflag & ICANON))
            (void)!write(s->master, (eof = (char)t.c_cc[VEOF], &eof), 1);
        st->to = -1;
    } else {
        fd_closep(&st->to);
    }
}

/* Nobody reads our output: let the application find out as it would have. */
static void end_output(struct supervisor *s, struct stream *st)
{
    st->gone = true;
    st->at = st->len = 0;
    if (is_ours(s, st))
        fd_closep(&st->from);
}

static void stream_read(struct supervisor *s, struct stream *st)
{
    ssize_t n = read(st->from, st->buf, sizeof(st->buf));
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n < 0 && errno == EIO && st->number == 0 && in_background())
        return;   /* since we have looked */
    if (n <= 0) { /* EIO is how a pty says that its other side is closed */
        if (st->number == 0)
            end_input(s);
        else if (is_ours(s, st))
            fd_closep(&st->from);
        else
            st->from = -1;
        return;
    }
    if (st->number && s->hooks.output)
        s->hooks.output(s->hooks.arg, st->number, st->buf, (size_t)n);
    if (st->gone)
        return;
    st->at = 0;
    st->len = (size_t)n;
}

static void stream_write(struct supervisor *s, struct stream *st)
{
    size_t step = st->len < STREAM_STEP ? st->len : STREAM_STEP;
    ssize_t n = write(st->to, st->buf + st->at, step);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n < 0 && st->number) {
        end_output(s, st);
    } else if (n < 0) {
        st->at = st->len = 0; /* the application closed its input */
        end_input(s);
    } else {
        st->at += (size_t)n;
        st->len -= (size_t)n;
        if (st->number == 0 && st->len == 0 && st->from < 0)
            end_input(s);
    }
}

static void send_signal(struct box *b, int sig, bool group)
{
    (void)(group ? box_signal_group(b, sig, NULL) : box_signal(b, sig, NULL));
}

/* Stop with the application and continue with it, as a shell expects of a job. */
static void suspend(struct supervisor *s, struct box *b, bool group)
{
    send_signal(b, SIGSTOP, group);
    leave_raw(s, TCSANOW);
    s->behind = true; /* raw again once we are sure to be in the foreground */
    (void)raise(SIGSTOP);
    send_signal(b, SIGCONT, group);
}

/* What a terminal sends it sends to a whole process group; the application has one of its own. */
static bool is_from_terminal(const struct signalfd_siginfo *si)
{
    return si->ssi_code == SI_KERNEL &&
           (si->ssi_signo == SIGINT || si->ssi_signo == SIGQUIT || si->ssi_signo == SIGTSTP ||
            si->ssi_signo == SIGHUP || si->ssi_signo == SIGWINCH);
}

static void on_signals(struct supervisor *s, struct box *b)
{
    struct signalfd_siginfo si;
    while (read(s->signals, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
        int sig = (int)si.ssi_signo;
        if (sig == SIGPIPE)
            continue;
        if (sig == SIGTSTP)
            suspend(s, b, is_from_terminal(&si));
        else if (sig == SIGWINCH && s->master >= 0)
            follow_window(s);
        else
            send_signal(b, sig, is_from_terminal(&si));
        if ((sig == SIGTERM || sig == SIGINT || sig == SIGQUIT) && s->hooks.asked_to_end)
            s->hooks.asked_to_end(s->hooks.arg);
    }
}

enum {
    POLL_SIGNALS,
    POLL_BOX,
    POLL_WATCHED,
    POLL_FIRST_STREAM,
    POLL_COUNT = POLL_FIRST_STREAM + 3
};

/* A stream is polled for what it waits for: its reader while bytes are pending, else its writer. */
static struct pollfd poll_for(const struct stream *st)
{
    if (st->len)
        return (struct pollfd){st->to, POLLOUT, 0};
    return (struct pollfd){st->from, POLLIN, 0};
}

static int pause_ms(struct supervisor *s)
{
    int most = s->behind ? BEHIND_MS : -1;
    if (!s->hooks.tick_ms || !s->hooks.tick)
        return most;
    uint64_t now = clock_now();
    int tick = now >= s->next_tick ? 0 : (int)((s->next_tick - now) / 1000000 + 1);
    return most >= 0 && most < tick ? most : tick;
}

static void tick(struct supervisor *s)
{
    if (!s->hooks.tick_ms || !s->hooks.tick || clock_now() < s->next_tick)
        return;
    s->next_tick = clock_now() + (uint64_t)s->hooks.tick_ms * 1000000;
    s->hooks.tick(s->hooks.arg);
}

static void serve_stream(struct supervisor *s, struct stream *st, short events)
{
    if (!events)
        return;
    if (st->len)
        stream_write(s, st);
    else if (st->from >= 0)
        stream_read(s, st);
}

/* Everything in the box is dead: what is left in the pipes is all there will ever be. */
static void drain(struct supervisor *s)
{
    struct stream *both[] = {&s->out, &s->err};
    for (size_t i = 0; i < 2; i++) {
        struct stream *st = both[i];
        if (st->from >= 0)
            (void)fcntl(st->from, F_SETFL, O_NONBLOCK);
        for (;;) {
            while (st->len) {
                struct pollfd p = {st->to, POLLOUT, 0};
                (void)poll(&p, 1, -1);
                stream_write(s, st);
            }
            int was = st->from;
            if (was < 0)
                break;
            stream_read(s, st);
            if (!st->len && st->from == was)
                break;
        }
    }
}

enum rc supervise_run(struct supervisor *s, struct box *b, int *out_status, struct err *err)
{
    struct stream *streams[] = {&s->in, &s->out, &s->err};
    for (;;) {
        look_at_terminal(s);
        struct pollfd wait[POLL_COUNT] = {[POLL_SIGNALS] = {s->signals, POLLIN, 0},
                                          [POLL_BOX] = {box_fd(b), POLLIN, 0},
                                          [POLL_WATCHED] = {s->watched, POLLIN, 0}};
        for (int i = 0; i < 3; i++)
            wait[POLL_FIRST_STREAM + i] = poll_for(streams[i]);
        if (s->behind && !s->in.len)
            wait[POLL_FIRST_STREAM].fd = -1;
        if (poll(wait, POLL_COUNT, pause_ms(s)) < 0 && errno != EINTR)
            return err_sys(err, "wait for the application");
        if (wait[POLL_SIGNALS].revents)
            on_signals(s, b);
        for (int i = 0; i < 3; i++)
            serve_stream(s, streams[i], wait[POLL_FIRST_STREAM + i].revents);
        if (wait[POLL_WATCHED].revents && s->hooks.readable)
            s->hooks.readable(s->hooks.arg, s->watched);
        tick(s);
        if (wait[POLL_BOX].revents) {
            enum rc rc = box_wait(b, out_status, err);
            box_reap(b);
            drain(s);
            return rc;
        }
    }
}

void supervise_freep(struct supervisor **p)
{
    struct supervisor *s = STEAL(*p);
    if (!s)
        return;
    leave_raw(s, TCSADRAIN);
    supervise_streams_given(s);
    if (!s->pty) {
        fd_closep(&s->in.to);
        fd_closep(&s->out.from);
        fd_closep(&s->err.from);
    }
    fd_closep(&s->master);
    fd_closep(&s->signals);
    (void)sigprocmask(SIG_SETMASK, &s->mask, NULL);
    free(s);
}

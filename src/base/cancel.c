#include "base/cancel.h"

#include "base/compiler.h"
#include "base/sys.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static const int signals[CANCEL_SIGNALS] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};

/* A handler is given nothing else, and is the process's. */
static struct cancel *volatile armed;
static volatile sig_atomic_t limit;

enum rc cancel_init(struct cancel *out, struct err *err)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return err_sys(err, "make an eventfd");
    *out = (struct cancel){.fd = fd};
    return RC_OK;
}

void cancel_done(struct cancel *c)
{
    cancel_disarm(c);
    fd_closep(&c->fd);
}

void cancel_ask(const struct cancel *c)
{
    uint64_t one = 1;
    (void)!write(c->fd, &one, sizeof(one));
}

bool cancel_asked(const struct cancel *c)
{
    struct pollfd word = {c ? c->fd : -1, POLLIN, 0};
    return poll(&word, 1, 0) > 0;
}

/* ---- signals ---- */

static _Noreturn void end_at_once(const struct cancel *c)
{
    static const char text[] = "interrupted\n";
    (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
    _exit(128 + c->signal);
}

static void on_signal(int sig)
{
    int why = errno;
    struct cancel *c = armed;
    if (c && c->signal && limit)
        end_at_once(c);
    if (c && !c->signal) {
        c->signal = sig;
        if (limit)
            (void)alarm((unsigned)limit);
        cancel_ask(c);
    }
    errno = why;
}

static void on_alarm(int sig)
{
    const struct cancel *c = armed;
    (void)sig;
    if (c)
        end_at_once(c);
}

static void let_through(void)
{
    sigset_t set;
    (void)sigemptyset(&set);
    for (size_t i = 0; i < CANCEL_SIGNALS; i++)
        (void)sigaddset(&set, signals[i]);
    (void)sigaddset(&set, SIGALRM);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void cancel_arm(struct cancel *c, unsigned limit_s)
{
    struct sigaction ours = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    if (c->armed)
        return;
    (void)sigfillset(&ours.sa_mask);
    armed = c;
    limit = (sig_atomic_t)limit_s;
    c->armed = true;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &c->mask);
    for (size_t i = 0; i < CANCEL_SIGNALS; i++) {
        (void)sigaction(signals[i], NULL, &c->before[i]);
        c->taken[i] = c->before[i].sa_handler == SIG_DFL;
        if (c->taken[i])
            (void)sigaction(signals[i], &ours, NULL);
    }
    if (limit_s) {
        ours.sa_handler = on_alarm;
        (void)sigaction(SIGALRM, &ours, NULL);
    }
    let_through();
}

void cancel_limit(struct cancel *c, unsigned limit_s)
{
    struct sigaction action = {.sa_handler = limit_s ? on_alarm : SIG_DFL, .sa_flags = SA_RESTART};
    if (!c->armed)
        return;
    if (!limit_s)
        (void)alarm(0);
    (void)sigaction(SIGALRM, &action, NULL);
    limit = (sig_atomic_t)limit_s;
    if (c->signal)
        (void)alarm(limit_s);
}

void cancel_disarm(struct cancel *c)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL}, now;
    if (!c->armed)
        return;
    /* first blocked again, if they were: a signal that comes in between must not end us */
    (void)pthread_sigmask(SIG_SETMASK, &c->mask, NULL);
    for (size_t i = 0; i < CANCEL_SIGNALS; i++)
        if (c->taken[i] && sigaction(signals[i], NULL, &now) == 0 && now.sa_handler == on_signal)
            (void)sigaction(signals[i], &c->before[i], NULL);
    if (limit) {
        (void)alarm(0);
        (void)sigaction(SIGALRM, &dfl, NULL);
    }
    armed = NULL;
    c->armed = false;
}

enum rc cancel_error(const struct cancel *c, struct err *err)
{
    const char *name = c->signal ? sigabbrev_np(c->signal) : NULL;
    if (!name)
        return err_set(err, RC_CANCELLED, "interrupted");
    return err_set(err, RC_CANCELLED, "interrupted by SIG%s", name);
}

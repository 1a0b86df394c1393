/* Word that work is to be given up.
 *
 * Who waits polls `fd` beside what it waits for; who works asks cancel_asked() now and then.  The
 * word is never taken back.  It comes from another thread or process (cancel_ask()), or from a
 * signal, while signals are armed.
 *
 * Threads: cancel_ask() and cancel_asked() are safe, the rest is for one thread.  Signals belong to
 * the process: one object at a time may be armed.
 */
#pragma once

#include "base/err.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#define CANCEL_SIGNALS 4

struct cancel {
    int fd; /* an eventfd, readable once the word is given; children share it */
    volatile sig_atomic_t signal; /* that has given it; 0 = none has */
    bool armed;
    bool taken[CANCEL_SIGNALS]; /* of the signals that can be armed: whose handler is ours */
    struct sigaction before[CANCEL_SIGNALS];
    sigset_t mask;
};

#define CANCEL_INIT                                                                                \
    {                                                                                              \
        .fd = -1                                                                                   \
    }

/* out: cancel_done().  errors RC_IO */
enum rc cancel_init(struct cancel *out, struct err *err);
/* For CLEANUP(); disarms it. */
void cancel_done(struct cancel *c);

void cancel_ask(const struct cancel *c);
/* NULL is never asked. */
bool cancel_asked(const struct cancel *c);

/* From now on SIGTERM, SIGINT, SIGHUP and SIGQUIT give the word instead of ending us; those that
 * are blocked are let through.  A signal that somebody ignores or handles stays as it is. limit_s
 * when the word has been given by a signal, and so many seconds later, or at the next such signal,
 * cancel_disarm() has not been called, the process ends with 128 + signal; 0 = it is waited for as
 * long as it takes */
void cancel_arm(struct cancel *c, unsigned limit_s);
/* While signals are armed: another limit_s from now on; of a word that a signal has given already
 * the seconds begin now.  For what may be left at any moment, but may also hang. */
void cancel_limit(struct cancel *c, unsigned limit_s);
/* As before: a signal ends us at once, or is blocked again.  What others have set since stays. */
void cancel_disarm(struct cancel *c);

/* The error of work that is given up: RC_CANCELLED, "interrupted by SIGTERM". */
enum rc cancel_error(const struct cancel *c, struct err *err);

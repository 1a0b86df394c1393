/* Stand between an application in a box and whoever started us, so that he notices nothing.
 *
 * Standard input is copied to the application, its output to ours; every signal that reaches us is
 * passed on, what a terminal sends to all of the application's process group; a terminal is in raw
 * mode while we are in its foreground, and only then read; the end of the application ends
 * supervise_run() with its wait status, after the last byte of output has been delivered.
 * Output can be watched (for `--ready log:`) and events of other descriptors served meanwhile.
 *
 * Threads: one supervisor a process, in its main thread: it owns the process's signal handling.
 */
#pragma once

#include "base/err.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/types.h>

struct box;
struct supervisor;

struct supervise_hooks {
    /* Bytes of output on their way (1 = standard output, 2 = standard error); may be NULL. */
    void (*output)(void *arg, int stream, const char *data, size_t len);
    /* `fd` given to supervise_watch() is readable. */
    void (*readable)(void *arg, int fd);
    /* SIGTERM, SIGINT or SIGQUIT has been passed on; may be NULL. */
    void (*asked_to_end)(void *arg);
    /* At least every `tick_ms`, if that is not 0. */
    void (*tick)(void *arg);
    void *arg;
    unsigned tick_ms;
};

/* Whether the caller's own terminal is one that an application would expect to control: standard
 * input and output are terminals, and we are in the foreground. */
bool supervise_on_terminal(void);

/* Make the application's pipes (or none, for a pty) and take over the process's signals.
 * pty     the application has a pty; works without a terminal of our own, too
 * out     the caller's, supervise_freep() */
enum rc supervise_new(bool pty, const struct supervise_hooks *hooks, struct supervisor **out,
                      struct err *err);

/* The application's ends, for struct box_config: -1 with a pty.  Standard output and error are one
 * pipe when they are one open file for us, so that what is written to both keeps its order. */
const int *supervise_app_streams(const struct supervisor *s);

/* The signal mask that we were started with: the application's. */
const sigset_t *supervise_signal_mask(const struct supervisor *s);

/* The size of our terminal, zero without one. */
struct winsize supervise_window(void);

/* Close our copies of the application's ends: call when the application holds its own. */
void supervise_streams_given(struct supervisor *s);

/* Take the master of the pty; kept. */
void supervise_take_master(struct supervisor *s, int master);

/* A restored full-screen program shows nothing on a new terminal before it draws again: let its
 * terminal say that the window has changed. */
void supervise_redraw(const struct supervisor *s);

/* Also poll this descriptor, borrowed; -1 stops it.  One at a time. */
void supervise_watch(struct supervisor *s, int fd);

/* Change the pause between ticks; 0 = none. */
void supervise_set_tick(struct supervisor *s, unsigned tick_ms);

/* Copy and pass on until the application ends.
 * out_status  its wait status
 * errors      RC_CANCELLED (the box was killed from outside), RC_IO */
enum rc supervise_run(struct supervisor *s, struct box *b, int *out_status, struct err *err);

/* Restore the terminal and the signals.  NULL is fine. */
void supervise_freep(struct supervisor **p);

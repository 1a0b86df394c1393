/* A box: the PID, mount and IPC namespace in which chrek runs an application.
 *
 * The first process of the box is our init: a fork of the calling program that mounts the box's own
 * /proc, /dev/pts, /dev/shm and application directory, starts the application (cold) or adopts the
 * tree that CRIU has restored, reaps every orphan, passes signals on, and ends with the status of
 * the application's main process; the kernel then ends whatever is left of the box.  Because PIDs
 * are the box's own, any number of restores of one checkpoint can run at once.
 *
 * The rest of the file system is a private copy of the caller's mount table: same files, same
 * paths; mounts made inside stay inside.  The network is the caller's unless a private one is asked
 * for.
 *
 * Invariant: the box lives no longer than the process that made it: init ends when its control
 * socket is closed, so a killed supervisor takes its application with it, as a killed program
 * would. Threads: a box belongs to one thread; box_create() must be called while the process has
 * one thread.
 */
#pragma once

#include "base/err.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/types.h>

#define BOX_APP_DIR "/run/chrek/app" /* the application directory, as the application sees it */
#define BOX_FIRST_PID 300            /* the application's own PID is above this, see box_start() */

struct box;

struct box_config {
    bool private_net; /* a network namespace of its own, with loopback up */
    bool host_shm;    /* keep the caller's /dev/shm instead of an empty one of the box's own */
    bool no_io_uring; /* the application starts without it: filter_io_uring() */
    bool tty;         /* stdio is a pty of the box; `stdio` is ignored */
    int stdio[3];     /* the application's ends of our pipes, borrowed; -1 = the box's /dev/null */
    struct winsize window;
    sigset_t mask; /* the application's signal mask; dispositions are the caller's own */
};

/* Make the box and mount its file systems; returns when init is ready for work.
 *
 * out     the caller's, box_free()
 * errors  RC_DENIED (no right to make namespaces or to mount), RC_UNSUPPORTED, RC_IO
 */
enum rc box_create(const struct box_config *config, struct box **out, struct err *err);

/* Start a command cold, as leader of its own session, with a PID above BOX_FIRST_PID so that PIDs
 * that a helper takes in a later box do not collide with its own.
 *
 * argv, envp  NULL-terminated, borrowed; argv[0] is looked up in PATH of envp
 * out_pid     the main process's PID inside the box
 * out_master  with config.tty the pty's master, the caller's; otherwise -1
 * errors      RC_NOT_FOUND (no such program), RC_DENIED (not executable), RC_IO
 */
enum rc box_start(struct box *b, char *const *argv, char *const *envp, pid_t *out_pid,
                  int *out_master, struct err *err);

/* Make a restored tree the box's application: its end becomes the box's end.
 * pid  the root's PID inside the box, as CRIU reported it; its end may already have been seen. */
enum rc box_adopt(struct box *b, pid_t pid, struct err *err);

/* Send a signal to the main process.  Before there is one, nothing happens. */
enum rc box_signal(struct box *b, int sig, struct err *err);

/* The same to all of its process group, as a terminal would.  Where the main process leads no group
 * (a restored one may not), to it alone. */
enum rc box_signal_group(struct box *b, int sig, struct err *err);

/* Readable when box_wait() would not block. */
int box_fd(const struct box *b);

/* Wait for the end of the main process.
 * out_status  as from waitpid()
 * errors      RC_CANCELLED (init was killed: the whole box is gone and its status unknown) */
enum rc box_wait(struct box *b, int *out_status, struct err *err);

/* After box_wait(): whether the main process had left others behind, which have ended with it. */
bool box_left_others(const struct box *b);

/* PID of init as the caller sees it: /proc/<pid>/root and /proc/<pid>/ns lead into the box. */
pid_t box_init_pid(const struct box *b);

/* Open a directory of the box, e.g. "/dev/shm".  out_fd: the caller's. */
enum rc box_open_dir(const struct box *b, const char *path, int *out_fd, struct err *err);

/* Make sure that no process of the box executes one more instruction of its own, not even one that
 * is being traced and about to be let go.  Does not wait: CRIU may be in the box, and is not ours
 * to reap. */
void box_kill(struct box *b);

/* End everything in the box at once and wait until it is gone; the object stays.  Not waited for is
 * what others have put into the box and do not reap: nothing of it runs any more. */
void box_reap(struct box *b);

/* box_reap(), and the object goes.  NULL is fine. */
void box_free(struct box *b);
/* For CLEANUP(). */
void box_freep(struct box **b);

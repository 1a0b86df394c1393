/* The socket over which CRIU hands over the userfaultfds of the tasks that it restores (its option
 * lazy-pages): "lazy-pages.socket" in its work directory, one connection a restore.
 *
 * For each task a number, its PID inside its PID namespace, then its userfaultfd; a negative number
 * is a zombie and has none.  When every task is in place comes the word that this was all.  The
 * same in CRIU 4.1 and 4.2.
 *
 * Threads: safe.
 */
#pragma once

#include "base/err.h"

#include <stdint.h>

/* Listen in a work directory.  out_fd: the caller's. */
enum rc cr_lazy_listen(int work, int *out_fd, struct err *err);

enum cr_lazy_kind {
    CR_LAZY_TASK,     /* pid, uffd */
    CR_LAZY_ZOMBIE,   /* nothing to do */
    CR_LAZY_FINISHED, /* every mapping of every task is in place */
};

struct cr_lazy_message {
    enum cr_lazy_kind kind;
    uint32_t pid; /* inside its PID namespace */
    int uffd;     /* the caller's, or -1 */
};

/* Receive one message; waits for it.
 * errors  RC_CANCELLED (CRIU has closed the connection), RC_INVALID (that makes no sense), RC_IO */
enum rc cr_lazy_receive(int connection, struct cr_lazy_message *out, struct err *err);

/* What a restored tree gets in place of what it had: standard streams, and, where a container was
 * dumped, the network namespace that it is to live in.
 * Threads: a struct belongs to one thread. */
#pragma once

#include "base/err.h"
#include "criu/session.h"
#include "store/metadata.h"

#include <stdbool.h>
#include <stddef.h>

#define INHERIT_MAX 4

struct inherit {
    size_t n;
    int fd[INHERIT_MAX];    /* for cr_launch.pass_fds; borrowed but `net` */
    char *key[INHERIT_MAX]; /* CRIU's name of what it stands in for */
    int net;                /* the network namespace, -1 = not needed */
    bool tty;               /* a standard stream was a terminal */
};

#define INHERIT_INIT                                                                               \
    {                                                                                              \
        .net = -1                                                                                  \
    }

/* Find out what it is.
 * images   directory of CRIU's images, for checkpoints that are not ours
 * streams  the descriptors that it may have, -1 = none; a pipe that two streams shared counts once
 * task     a process in the network namespace that the tree is to live in: its folder in /proc
 * out      the caller's, inherit_done()
 * errors   RC_CORRUPT, RC_NOT_FOUND (images), RC_IO */
enum rc inherit_find(const struct metadata *m, int images, const int streams[3], int task,
                     struct inherit *out, struct err *err);
void inherit_done(struct inherit *i); /* for CLEANUP() */

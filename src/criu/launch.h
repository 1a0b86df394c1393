/* Start `criu swrk` in its place; private to criu/ (session.c, launch.c). */
#pragma once

#include "criu/session.h"

struct cr_process {
    pid_t pid;   /* our child */
    int pidfd;   /* readable when it has ended */
    int socket;  /* our end of the conversation */
    int output;  /* a memory file with what it wrote to standard output and error */
    pid_t watch; /* our child that looks after it when we are killed, 0 = none */
    int alive;   /* ... which sees by this that we live; -1 = none */
};

/* out: every descriptor is the caller's; so is the child. */
enum rc cr_process_start(const struct cr_launch *launch, struct cr_process *out, struct err *err);

/* Kill and reap.
 * helpers  also kill what it has forked (its session): only while no tree that it has restored is
 * to live, which may share its session */
void cr_process_end(struct cr_process *p, bool helpers);

/* Sockets that a container may have: what CRIU makes as root, with options that need rights, is
 * compared with what the container's first process could make.  What a socket is the kernel says,
 * of a duplicate of its descriptor.  Threads: safe.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct wire {
    int domain, type, protocol;
    uint32_t mark, priority;
    bool transparent;
    uint16_t port; /* that it is bound to; 0: none, or not of its kind */
};

/* sk      the socket, or a duplicate; borrowed
 * errors  RC_IO */
enum rc wire_read(int sk, struct wire *out, struct err *err);

/* Whether one with these capabilities could have made it.
 * lowest  the lowest port that everybody may bind
 * errors  RC_DENIED */
enum rc wire_check(const struct wire *w, uint64_t caps, unsigned lowest, struct err *err);

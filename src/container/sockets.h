/* The TCP sockets of a network namespace: /proc/<pid>/net/tcp and tcp6.
 * Threads: a list belongs to one thread. */
#pragma once

#include "base/err.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SOCKETS_MAX 1000000 /* more lines than this are RC_TOO_BIG */

struct socket_tcp {
    struct in6_addr local, remote; /* IPv4 as ::ffff:a.b.c.d */
    uint16_t local_port, remote_port;
    int state;        /* TCP_ESTABLISHED, TCP_LISTEN ... of <netinet/tcp.h> */
    uint64_t pending; /* of a listener: connections that nobody has accepted yet */
    uint64_t ino;     /* of the socket; 0: no process owns it any more */
};

struct sockets {
    struct socket_tcp *list;
    size_t n;
};

/* Append the lines of one file; `v6` says which.  On failure `out` is as it was.
 * errors  RC_CORRUPT (which line), RC_TOO_BIG */
enum rc sockets_parse(const char *text, size_t len, bool v6, struct sockets *out, struct err *err);
/* Both files, in the network namespace of an open task.  A kernel without IPv6 is fine.
 * errors  RC_NOT_FOUND, RC_DENIED, RC_CORRUPT, RC_TOO_BIG */
enum rc sockets_read(int task, struct sockets *out, struct err *err);
void sockets_done(struct sockets *s); /* for CLEANUP() */

/* By inode; NULL when there is none (an unbound socket is in no table). */
const struct socket_tcp *sockets_find(const struct sockets *s, uint64_t ino);
/* The other end, if it is in this network namespace too; else NULL. */
const struct socket_tcp *sockets_peer(const struct sockets *s, const struct socket_tcp *one);

/* "10.0.0.1:80", "[::1]:80" */
#define SOCKETS_TEXT_MAX 64
void sockets_address(const struct in6_addr *a, uint16_t port, char out[SOCKETS_TEXT_MAX]);

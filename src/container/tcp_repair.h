/* TCP connections that CRIU has left in repair mode (TCP_REPAIR): they take what a program writes,
 * and send none of it.  Threads: safe. */
#pragma once

#include "base/err.h"

#include <sys/types.h>

/* Take all connections of a process out of repair mode: what it has written meanwhile is sent.
 * errors  RC_NOT_FOUND (it has ended), RC_DENIED (it takes CAP_NET_ADMIN and the rights of a
 *         debugger), RC_IO */
enum rc tcp_repair_end(pid_t pid, struct err *err);

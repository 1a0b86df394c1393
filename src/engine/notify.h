/* Tell a restored application that it lives again.
 *
 *   signal:NAME  a signal to its main process: USR1, SIGHUP, 34...
 *   exec:CMD     `/bin/sh -c CMD` inside the box, waited for
 *
 * Threads: safe.
 */
#pragma once

#include "base/err.h"

#include <stdint.h>
#include <sys/types.h>

struct box;

/* errors RC_INVALID, with the forms that are accepted */
enum rc notify_check(const char *how, struct err *err);

/* deadline  monotonic ns
 * errors    RC_INVALID, RC_TIMEOUT (the command was killed), RC_IO (it failed: its status) */
enum rc notify_application(const char *how, struct box *b, uint64_t deadline, struct err *err);

/* The same for a process in our own namespaces. */
enum rc notify_process(const char *how, pid_t pid, uint64_t deadline, struct err *err);

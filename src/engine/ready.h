/* When is an application ready to be checkpointed?  The `--ready` conditions.
 *
 *   file:PATH        the file exists; a relative path is taken from the application directory, so
 *                    `file:ready` is what chrek.h and the Python module write
 *   tcp:[HOST:]PORT  something accepts connections there; HOST is a numeric address or localhost,
 *                    which is the default
 *   http:URL         GET answers with a status from 200 to 399; URL is `//HOST:PORT/PATH` or
 *                    `PORT/PATH`, with or without `http:` before it
 *   https:URL        the same over TLS; any certificate will do, as in a kubelet's probes
 *   log:REGEX        a line of output matches (POSIX extended)
 *   after:SECONDS    that much time has passed since the start
 *   exit-of:CMD      `/bin/sh -c CMD` exits with status 0; run about twice a second, beside the
 *                    application, in the directory that it was started in
 *
 * Checks never block: connections and commands go on between calls of ready_check().
 * Threads: a condition belongs to one thread.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct ready;

/* Parse a condition.
 * out     the caller's, ready_freep()
 * errors  RC_INVALID, with the forms that are accepted */
enum rc ready_parse(const char *text, struct ready **out, struct err *err);

/* Where to look.
 * init    a process of the box, whose mount and network namespaces count; 0 = our own
 * appdir  descriptor of the application directory, borrowed, -1 = none
 * start   monotonic ns of the application's start */
void ready_place(struct ready *r, pid_t init, int appdir, uint64_t start);

/* Output of the application, for `log:`; cheap for every other condition. */
void ready_output(struct ready *r, int stream, const char *data, size_t len);

/* Look once.  Once true it stays true.  A condition that cannot be looked at (no such network
 * namespace any more) is simply not met. */
bool ready_check(struct ready *r);

void ready_freep(struct ready **p);

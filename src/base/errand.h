/* A program of the user's that is given some bytes on its standard input and answers with some on
 * its standard output: the client of a key service, a keeper of credentials.  Complaints go to
 * standard error.  It is run without a shell, and killed, with what it has started, when its time
 * is up.
 * Threads: safe. */
#pragma once

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define ERRAND_NOT_STARTED 127 /* the status of a program that is not there, or not executable */

/* Run it.
 * argv        looked for in PATH; NULL-terminated
 * env         NULL-terminated
 * deadline    clock_now()
 * out         `cap` bytes
 * out_status  its exit status; when a signal has ended it 128 and that
 * errors      RC_TIMEOUT, RC_CORRUPT (it answered more than `cap` bytes), RC_IO; none tells what it
 *             answered */
enum rc errand_run(char *const *argv, char *const *env, const void *in, size_t len,
                   uint64_t deadline, void *out, size_t cap, size_t *out_len, int *out_status,
                   struct err *err);

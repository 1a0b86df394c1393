/* A command of the user's that wraps and unwraps keys: the client of a key service.
 *
 * It is run without a shell: words are separated by blanks, nothing is quoted.  CHREK_KEY_OPERATION
 * in its environment says `wrap` or `unwrap`; what is to be wrapped or unwrapped comes on its
 * standard input, the result goes to its standard output, complaints to standard error.  It is
 * killed, with what it has started, when its time is up.
 *
 * Threads: safe.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Run it.
 * out      `cap` bytes
 * errors   RC_INVALID (no words), RC_UNAVAILABLE (cannot be started, or failed), RC_TIMEOUT,
 *          RC_CORRUPT (it answered nothing, or more than `cap` bytes); none tells what it answered
 */
enum rc key_command_run(const char *command, bool wrap, uint64_t timeout_ns, const void *in,
                        size_t len, void *out, size_t cap, size_t *out_len, struct err *err);

/* The agent's log: a JSON object a line on standard error.  Threads: safe. */
#pragma once

/* msg    constant text: what happened
 * pairs  names and texts; a NULL text is left out; ends with a NULL name */
void log_info(const char *msg, ...) __attribute__((sentinel));
void log_warn(const char *msg, ...) __attribute__((sentinel));
void log_error(const char *msg, ...) __attribute__((sentinel));

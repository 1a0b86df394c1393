/* The restore entrypoint's log: on standard output, one line each,
 *   time="YYYY-MM-DD HH:MM:SS" level=info msg="..." key=value
 * Values with blanks, quotes or control characters are quoted.
 * Threads: the program's main thread only.
 */
#pragma once

/* The message, then pairs of key and value, then NULL. */
void log_info(const char *msg, ...) __attribute__((sentinel));
void log_warn(const char *msg, ...) __attribute__((sentinel));
void log_error(const char *msg, ...) __attribute__((sentinel));

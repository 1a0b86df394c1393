/* Numbers from outside: the whole text or nothing, within limits, no blanks, no sign, no octal.
 * Threads: safe. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* Decimal digits only.  errors RC_INVALID (no number, or outside min..max; the message says it). */
enum rc num_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *out, struct err *err);

/* 1, true, yes, on; 0, false, no, off; in any case.  *out stays as it is when it is none of them.
 * errors RC_INVALID */
enum rc num_parse_bool(const char *text, bool *out, struct err *err);

/* Bytes: digits with an optional K, M, G or T (powers of 1024; KiB, MiB... also accepted).
 * errors RC_INVALID (no size, or 2^64 and more) */
enum rc num_parse_size(const char *text, uint64_t *out, struct err *err);

/* A duration in ns: digits, optionally with a fraction, and ms, s, m, h or d; no unit means
 * seconds.  errors RC_INVALID (no duration, 2^64 ns and more, or digits finer than 1 ns: what is
 * not zero never becomes zero) */
enum rc num_parse_duration(const char *text, uint64_t *out_ns, struct err *err);

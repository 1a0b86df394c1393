/* A cursor over text that the kernel wrote: lines, words, numbers, never past the end.
 *
 * The text need not end in a NUL and may hold any byte.  A cursor borrows it.
 * Threads: a cursor belongs to one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct scan {
    const char *at, *end;
};

struct scan scan_of(const char *text, size_t len);

/* Cut the next line (without its newline), the next word (blanks and tabs before it are skipped),
 * or what stands before the next `sep`, off the front.  False when nothing is left. */
bool scan_line(struct scan *s, struct scan *out);
bool scan_word(struct scan *s, struct scan *out);
bool scan_until(struct scan *s, char sep, struct scan *out);

/* The whole of `s` as a number, digits only; `base` 8, 10 or 16.  False if it is none or does not
 * fit. */
bool scan_u64(struct scan s, unsigned base, uint64_t *out);
/* The same with an optional sign in front, and within min..max. */
bool scan_i64(struct scan s, int64_t min, int64_t max, int64_t *out);

bool scan_is(struct scan s, const char *text);
bool scan_starts(struct scan s, const char *text);
bool scan_ends(struct scan s, const char *text);
size_t scan_len(struct scan s);

/* A copy as a string, up to the first NUL; the caller's (free). */
char *scan_dup(struct scan s);
/* The same, cut to fit; `cap` at least 1. */
void scan_copy(struct scan s, char *out, size_t cap);

/* A copy with the octal escapes of /proc (\040 for a blank) undone; the caller's (free). */
char *scan_dup_unescaped(struct scan s);

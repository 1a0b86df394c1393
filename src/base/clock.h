/* Time: monotonic nanoseconds for deadlines, UTC text for people and files.  Threads: safe. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define CLOCK_MS ((uint64_t)1000000)
#define CLOCK_S ((uint64_t)1000000000)

/* CLOCK_MONOTONIC in ns. */
uint64_t clock_now(void);

/* Milliseconds until a deadline for poll(): -1 for deadline 0 (never), 0 when it has passed. */
int clock_poll_ms(uint64_t deadline);

/* Now, UTC, RFC 3339 with nanoseconds: 2026-01-31T12:00:00.123456789Z */
#define CLOCK_RFC3339_LEN 31 /* with the NUL */
void clock_rfc3339(char out[CLOCK_RFC3339_LEN]);
/* The same of a moment ago; not before 1970. */
void clock_rfc3339_ago(uint64_t ns, char out[CLOCK_RFC3339_LEN]);

/* Now, local time: YYYY-MM-DD HH:MM:SS */
#define CLOCK_LOCAL_LEN 20
void clock_local(char out[CLOCK_LOCAL_LEN]);

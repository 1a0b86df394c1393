/* Output for people: tables, sizes, durations, a progress line.
 * Threads: a table or progress belongs to one thread at a time. */
#pragma once

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "1.4 GiB", "312 B": three or four digits, a unit from B to TiB */
void term_size(uint64_t bytes, struct buf *out);
/* "1.5 ms", "312 ms", "1.24 s", "3 min 12 s", "5 h 20 min" */
void term_duration(uint64_t ns, struct buf *out);
/* "3 min ago" from an RFC 3339 UTC time (with Z); the text itself if it is none, "-" for NULL. */
void term_age(const char *rfc3339, struct buf *out);

#define TERM_COLUMNS_MAX 10

/* Rows are collected, then printed with every column as wide as it needs to be.  A column whose
 * title begins with `>` is aligned to the right. */
struct term_table {
    size_t columns, rows;
    char **cells; /* the titles first */
};

/* titles: `columns` of them */
void term_table_init(struct term_table *t, const char *const *titles, size_t columns);
/* One row; NULL counts as "-".  Control characters are shown as `?`. */
void term_table_row(struct term_table *t, const char *const *cells);
void term_table_print(const struct term_table *t, struct buf *out);
void term_table_done(struct term_table *t);

/* A line on standard error that is drawn over and over; only on a terminal, and only after a
 * second, so that what is quick stays quiet. */
struct term_progress {
    bool enabled, drawn;
    uint64_t begun, last;
    const char *what; /* of the phase that `begun` belongs to */
};

void term_progress_init(struct term_progress *p, bool enabled);
/* done, total: bytes; total 0 = unknown */
void term_progress(struct term_progress *p, const char *what, uint64_t done, uint64_t total);
/* Take the line away. */
void term_progress_end(struct term_progress *p);

/* Memory that CRIU was kept from during a dump, because we save it ourselves, faster.
 *
 * The CRIU that tools/get-criu installs can be told, by a variable of its environment, to overlook
 * the pages of large private anonymous mappings (tools/criu/pages.c).  It writes to a descriptor
 * which ranges it has not seen.  Our caller copies these, and adds them to the page maps as pages
 * that are lazy and in no page image, which is how CRIU itself marks pages that come later.
 *
 * Where it is told to, CRIU also leaves a *keeper* behind for each process of which it has not seen
 * all: a process that never runs and has the same memory, copied on write
 * (tools/criu/keep.c), so that the copying can follow when the tree goes on or has ended.
 *
 * Threads: safe, on different objects.
 */
#pragma once

#include "base/err.h"
#include "criu/pagemap.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The variable's value is the number of the descriptor inside CRIU, then perhaps this word. */
#define CR_HIDDEN_VARIABLE "CHREK_HIDDEN_FD"
#define CR_HIDDEN_KEEP ",keep"

/* Whether the program at this path knows the variable, and keepers. */
bool cr_can_hide(const char *criu);
bool cr_can_keep(const char *criu);

/* Through the same descriptor, before the dump: leave none behind after all.
 * errors  RC_IO */
enum rc cr_keepers_decline(int fd, struct err *err);

struct cr_hidden {
    uint32_t pid; /* as CRIU saw it */
    uint64_t start, end;
};

/* What was written to the descriptor, from its begin on: sorted by process and address, disjoint.
 * out     the caller's (free), NULL when there is nothing
 * errors  RC_CORRUPT, RC_IO */
enum rc cr_hidden_read(int fd, struct cr_hidden **out, size_t *out_n, struct err *err);

/* Who keeps memory. */
struct cr_keeper {
    uint32_t pid, keeper; /* as CRIU saw them */
};

/* At the post-dump notification: stopped, traced by nobody, for the caller to take over, or to end.
 * out     the caller's (free), NULL when there are none
 * errors  as above */
enum rc cr_keepers_read(int fd, struct cr_keeper **out, size_t *out_n, struct err *err);

/* Add runs to a page map as lazy and absent; `at` and the counters of all its runs are set anew.
 * runs    ascending, disjoint; only address and pages count
 * errors  RC_CORRUPT (a page is in the page map already) */
enum rc cr_pagemap_add(struct cr_pagemap *p, const struct cr_run *runs, size_t n, struct err *err);

/* Which pages of one address space are still missing, and where each comes from.
 *
 * A table of regions, sorted by address, none overlapping: pages that follow each other in memory
 * and in a stream of the checkpoint, with a bit for each that is missing.  It follows what the
 * program does to its address space: what it unmaps or drops is cut out, what it moves is moved.
 * A page without a bit is either there, or zero.
 *
 * Events of several threads may arrive in another order than that in which the kernel has done what
 * they tell: one thread's unmapping may be reported after another thread's moving something to the
 * very place that has become free.  A move tells of what it replaces before; so what still lies at
 * its target is *late*: it keeps its old address aside until the event comes that explains where it
 * has gone, and that event is not for what lies there now.  A region of which nothing is missing is
 * kept for the same reason: it is mapped, so its end is told of.
 *
 * The kernel also tells of a move's old place as unmapped, after the move and only when the thread
 * runs again; by then something else may have been moved there.  So a move leaves its old place
 * *vacated*, and the next event that unmaps that place is for this, not for what lies there now.
 *
 * Threads: find, next and filled may run at the same time; everything else needs the table alone.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REGIONS_PAGE ((uint64_t)4096)

struct region {
    uint64_t address, pages;
    uint64_t first; /* page of the stream */
    uint32_t stream;
    uint64_t *bits; /* borrowed from the table; its page i is bit `bit + i` */
    uint64_t bit;
};

/* What is not in its place: oldest first. */
struct regions_aside {
    struct region *list;
    size_t n;
};

struct regions {
    struct region *list;
    size_t n;
    uint64_t **maps; /* the memory of the bits */
    size_t n_maps;
    struct regions_aside late, vacated; /* vacated ones have no bits */
    uint64_t missing;                   /* pages, also late ones; atomic */
};

/* Missing pages that follow each other, in memory and in their stream. */
struct regions_run {
    uint64_t address, pages;
    uint64_t first;
    uint32_t stream;
};

/* All pages of a region are missing from now on.  Regions come by ascending address.
 * pages  at least 1; address + pages must not overflow */
void regions_add(struct regions *r, uint64_t address, uint64_t pages, uint32_t stream,
                 uint64_t first);
/* The page at an address, if it is missing, and up to max - 1 that follow. */
bool regions_find(const struct regions *r, uint64_t address, uint64_t max, struct regions_run *out);
/* The first missing page at or behind an address, and up to max - 1 that follow. */
bool regions_next(const struct regions *r, uint64_t address, uint64_t max, struct regions_run *out);
/* These are no longer missing; what is no region is skipped. */
void regions_filled(struct regions *r, uint64_t address, uint64_t pages);
/* Whether pages are missing of which it is not known yet where they have gone. */
bool regions_miss_late(const struct regions *r);
/* What lies there is no longer mapped, so that no event will tell of it.  len: bytes */
void regions_cut(struct regions *r, uint64_t address, uint64_t len);
/* The program has unmapped it. */
void regions_unmap(struct regions *r, uint64_t address, uint64_t len);
/* The program has moved its memory. */
void regions_move(struct regions *r, uint64_t from, uint64_t to, uint64_t len);
/* A copy for a forked process.  out: the caller's, regions_done() */
void regions_clone(const struct regions *r, struct regions *out);
uint64_t regions_missing(const struct regions *r);
void regions_done(struct regions *r);

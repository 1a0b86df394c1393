/* The threads that fill address spaces from packs.
 *
 * What is to be done, in this order: what a program waits for (faults), the working set, and when
 * every mapping is in place the rest, from the first address to the last.  One thread serves faults
 * only; the others turn to a fault as soon as they have finished the chunk in their hands, and keep
 * out of the way with the rest (pace.h), so that the program comes first.
 *
 * Of the working set as much as fits is expanded while CRIU still makes the processes (early.h).
 * Who waits for a page of it gets its whole chunk next, or waits for the thread that has it in
 * hand.
 *
 * A page comes from a verified chunk, or not at all: when one cannot be had the crew stops, and its
 * owner is told to end the processes.  A working set that is damaged only is no longer used.
 *
 * Threads: crew_fault() and crew_add() for any number, the rest is for the owner.
 */
#pragma once

#include "base/err.h"
#include "pager/pager.h"
#include "pager/record.h"
#include "pager/space.h"
#include "store/page_reader.h"
#include "store/workingset.h"

struct crew;

struct crew_options {
    const struct page_reader *pages;
    const struct workingset *workingset; /* NULL: none */
    const struct pager_gap *gaps;        /* where the pages of streams belong at first */
    size_t n_gaps;
    struct record *record; /* of faults */
    unsigned threads;      /* at least 1, besides the one for faults */
    int news;              /* an eventfd: written to when there is something to ask about */
    struct pager_figures *figures;
};

/* Start.  Everything in `o` is borrowed until crew_freep(). */
enum rc crew_new(const struct crew_options *o, struct crew **out, struct err *err);
/* A space to be filled, borrowed. */
void crew_add(struct crew *c, struct space *s);
void crew_fault(struct crew *c, struct space *s, uint64_t address);
/* Every mapping of every process that CRIU restores is in place. */
void crew_registered(struct crew *c);
/* Fill what nobody has asked for; at first the crew does not. */
void crew_fill(struct crew *c);
/* What has stopped the crew; RC_OK: it works. */
enum rc crew_trouble(struct crew *c, struct err *err);
/* End the threads. */
void crew_freep(struct crew **p);

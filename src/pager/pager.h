/* A restored program's memory, brought in while it runs (restore modes lazy and workingset).
 *
 * Two processes of ours serve a restore.  The *pager* takes the userfaultfds that CRIU hands over,
 * answers the faults of the program and brings in the rest (crew.h).  Its parent, the *guardian*,
 * does nothing but wait for the pager's end, and shares its table of descriptors: when the pager
 * is killed, every userfaultfd, also of a process forked a moment ago, is still open, and whoever
 * touches a missing page waits rather than read zeros.  The guardian then ends the processes.  It
 * does the same when a chunk is damaged or the store has gone, and says why.
 *
 * Both outlive CRIU, and end when all memory is in and, where there were huge pages, is in huge
 * pages again, or when the restored processes or their starter end.
 *
 * Of encrypted memory the pager has the keys of the packs; the guardian wipes its own.
 *
 * Threads: a pager belongs to one thread.  pager_start() forks.
 */
#pragma once

#include "base/err.h"
#include "store/page_reader.h"
#include "store/workingset.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Pages of a process that are to be brought in; none crosses a mapping. */
struct pager_gap {
    uint32_t pid;     /* inside its PID namespace */
    uint32_t stream;  /* of the checkpoint's memory */
    uint64_t address; /* of the first page */
    uint64_t pages;
    uint64_t first; /* page of the stream */
};

struct pager_options {
    int work; /* CRIU's work directory, where the socket is made */
    const struct page_reader *pages;
    const struct pager_gap *gaps;
    size_t n_gaps;
    const struct workingset_place *record; /* where to record what is touched; NULL: nowhere */
    const struct workingset *set;          /* what earlier restores have recorded, or NULL */
    const struct digest *memory;           /* of its memory map */
    bool use_record;                       /* bring in the recorded working set first */
    uint64_t record_ns; /* how long to record what the program touches, 0 = a default */
    /* End every process that is being restored, for good, as far as they are known; called again
     * while one lives.  Runs in the pager and in the guardian. */
    void (*kill)(void *arg);
    /* All memory is in, in small pages, where there may have been huge ones.  Runs in the pager,
     * with nobody waiting for it; asks before each piece of some MB whether to go on.  NULL: no. */
    void (*tidy)(void *arg, bool (*more)(void *more_arg), void *more_arg);
    void *arg;
};

enum pager_state {
    PAGER_WORKS,
    PAGER_FILLED, /* all memory is in; nothing can go wrong any more */
    PAGER_FAILED, /* the processes were ended */
};

struct pager_figures {
    uint64_t missing_pages;    /* at first */
    uint64_t given_pages;      /* atomic */
    uint64_t faults;           /* atomic */
    uint64_t workingset_pages; /* in the record that was used, 0 = none */
    uint64_t recorded_pages;   /* in the record that was written, 0 = none */
    uint64_t registered_ns;    /* when CRIU had handed everything over; CLOCK_MONOTONIC */
    uint64_t workingset_ns;    /* when the working set was in */
    uint64_t filled_ns;        /* when all was in */
};

struct pager;

/* Make the socket, start guardian and pager.  Everything in `o` is borrowed for the call.
 * out     the caller's, pager_freep()
 * errors  RC_DENIED, RC_IO */
enum rc pager_start(const struct pager_options *o, struct pager **out, struct err *err);

/* Wait until the pager holds everything that CRIU hands over.
 * errors  what the pager failed with; RC_TIMEOUT.  The processes have been ended then. */
enum rc pager_await(struct pager *p, uint64_t deadline, struct err *err);

/* The program is ready: what it touches from now on does not belong to the working set. */
void pager_ready(struct pager *p);

/* Readable when pager_state() may have changed. */
int pager_fd(const struct pager *p);
/* errors  what it failed with, for PAGER_FAILED; may be NULL */
enum pager_state pager_state(struct pager *p, struct err *err);
/* Both processes have ended: there is nothing more to wait for. */
bool pager_ended(const struct pager *p);
struct pager_figures pager_figures(const struct pager *p);

/* End guardian and pager; waits for a record that is being written.  While memory is still missing
 * the processes must be dead before, or are ended by it.
 * returns  PAGER_FILLED, or PAGER_FAILED and in *err why the processes were ended */
enum pager_state pager_end(struct pager **p, struct err *err);
/* The same; NULL is fine. */
void pager_freep(struct pager **p);

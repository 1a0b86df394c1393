/* An address space that is still being filled: its userfaultfd and what is missing.
 *
 * What the program does to its memory arrives as events, and the program waits until each has been
 * read.  Events are read, and the table follows, with nobody else touching the space; pages are
 * given with the table checked in the same breath.  So a page that the program has dropped or moved
 * is never given again from an old look at the table.
 *
 * Threads: space_events() belongs to one thread, everything else is for any number.
 */
#pragma once

#include "base/err.h"
#include "pager/regions.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct space {
    int uffd;     /* -1: finished */
    uint32_t pid; /* inside its PID namespace; 0 = forked since, unknown */
    bool gone;    /* the process has ended: nothing is missing any more; atomic */
    pthread_rwlock_t lock;
    struct regions regions;
};

/* uffd: kept.  regions: kept (moved). */
struct space *space_new(int uffd, uint32_t pid, struct regions *regions);
void space_free(struct space *s);

/* Told of what a space has met. */
struct space_hooks {
    void (*fault)(void *arg, struct space *s, uint64_t address);
    void (*forked)(void *arg, struct space *child); /* kept */
    void *arg;
};

/* Read what has happened.
 * errors  RC_IO, RC_UNSUPPORTED (a fork of which cannot be told where its memory lies) */
enum rc space_events(struct space *s, const struct space_hooks *hooks, struct err *err);

enum space_result {
    SPACE_OK,    /* given, or no longer wanted */
    SPACE_EARLY, /* there is no mapping at this place */
    SPACE_FAILED,
};

/* Give pages, as far as they are still missing and still come from there.
 * run  where they belong and what they are; data  run->pages pages */
enum space_result space_give(struct space *s, const struct regions_run *run, const void *data,
                             struct err *err);
/* A fault at an address of which nothing is missing: a zero page, unless one is there. */
enum space_result space_give_zero(struct space *s, uint64_t address, struct err *err);

/* As regions_find() and regions_next(). */
bool space_find(struct space *s, uint64_t address, uint64_t max, struct regions_run *out);
bool space_next(struct space *s, uint64_t address, uint64_t max, struct regions_run *out);
/* Pages; 0 when the process has ended. */
uint64_t space_missing(struct space *s);
/* Nothing is missing: give the memory back to the kernel.  False: something is, after all. */
bool space_finish(struct space *s);

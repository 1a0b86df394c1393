/* Which pages CRIU's page images hold, read and written: pagemap-<pid>.img for a process,
 * pagemap-shmem-<id>.img for shared memory, with the mappings of mm-<pid>.img they fall into.
 *
 * Images are outside bytes: everything is checked, and nothing that is returned contradicts itself.
 *
 * Threads: what was loaded is constant; loading belongs to one thread.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CR_PAGE ((uint64_t)4096)

/* Flags of a run. */
enum {
    CR_RUN_PARENT = 1,  /* the pages are in an older checkpoint's images */
    CR_RUN_LAZY = 2,    /* may be loaded after the program runs */
    CR_RUN_PRESENT = 4, /* the pages are in the page image */
};

/* Pages that follow each other in memory, and if present in the page image. */
struct cr_run {
    uint64_t address; /* of a process; of shared memory the offset inside it */
    uint64_t pages;
    uint64_t at; /* present: first page in the page image; else lazy: how many lazy pages that are
                    not present come before */
    uint32_t flags;
};

/* A mapping of a process. */
struct cr_mapping {
    uint64_t start, end;
    uint32_t prot, flags; /* as for mmap() */
    uint32_t status;      /* CRIU's */
    bool forks;           /* a child has its content (no MADV_DONTFORK, MADV_WIPEONFORK) */
    bool inherited;       /* the parent or a child has the same one: pages may be shared
                             copy-on-write between them */
};

struct cr_pagemap {
    char name[40];     /* "pagemap-4711.img" */
    uint32_t pid;      /* inside its PID namespace; 0 = shared memory */
    uint32_t pages_id; /* the page image is pages-<pages_id>.img */
    struct cr_run *runs;
    size_t n_runs;
    uint64_t present;            /* pages in the page image */
    uint64_t absent;             /* pages that are lazy and not in the page image */
    struct cr_mapping *mappings; /* sorted; none for shared memory */
    size_t n_mappings;
};

struct cr_pagemaps {
    struct cr_pagemap *list;
    size_t n;
};

/* Read every pagemap of a directory of images.
 * out     the caller's, cr_pagemaps_done()
 * errors  RC_CORRUPT (which), RC_UNSUPPORTED (pages are in another checkpoint), RC_TOO_BIG, RC_IO
 */
enum rc cr_pagemaps_load(int dirfd, struct cr_pagemaps *out, struct err *err);
void cr_pagemaps_done(struct cr_pagemaps *p);

/* Write a pagemap with other runs; `at` does not matter: pages follow each other in the page image.
 * errors  RC_NO_SPACE, RC_IO */
enum rc cr_pagemap_save(int dirfd, const char *name, uint32_t pages_id, const struct cr_run *runs,
                        size_t n, struct err *err);

/* The mapping that holds an address, NULL if none. */
const struct cr_mapping *cr_mapping_of(const struct cr_pagemap *p, uint64_t address);

/* Whether pages of a mapping may be brought in from outside after CRIU has made it: private,
 * anonymous, writable, not locked, no huge pages, no stack, nobody else's. */
bool cr_mapping_can_wait(const struct cr_mapping *m);

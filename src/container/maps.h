/* The memory areas of a process: /proc/<pid>/maps, or smaps for their flags too.
 * The text is outside bytes: a process chooses the names of its files and areas.
 * Threads: a list belongs to one thread. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAPS_MAX 1000000 /* more areas than this are RC_TOO_BIG */

enum map_flag {
    MAPS_READ = 1,
    MAPS_WRITE = 2,
    MAPS_EXEC = 4,
    MAPS_SHARES = 8,
    /* Only smaps tells these. */
    MAPS_LOCKS = 16,              /* mlock() */
    MAPS_HUGE = 32,               /* hugetlb */
    MAPS_IO = 64,                 /* memory of a device */
    MAPS_SEALED = 128,            /* mseal() */
    MAPS_SHADOW = 256,            /* shadow stack */
    MAPS_MAY_WRITE = 512,         /* it can be made writable */
    MAPS_WANTS_HUGE_PAGES = 1024, /* MADV_HUGEPAGE */
    MAPS_NO_HUGE_PAGES = 2048,    /* MADV_NOHUGEPAGE */
};

struct map {
    uint64_t start, end, off;
    unsigned flags;        /* of enum map_flag */
    unsigned major, minor; /* of the file system of the file */
    uint64_t ino;
    char *name; /* path, "[heap]", "" */
};

struct maps {
    struct map *list;
    size_t n;
};

/* Either file's text.  errors  RC_CORRUPT (which line), RC_TOO_BIG */
enum rc maps_parse(const char *text, size_t len, struct maps *out, struct err *err);
/* Of an open task.
 * flags   read smaps: about 10 ms per GB of memory, so not while the process waits
 * errors  RC_NOT_FOUND, RC_DENIED, RC_CORRUPT, RC_TOO_BIG */
enum rc maps_read(int task, bool flags, struct maps *out, struct err *err);
void maps_done(struct maps *m); /* for CLEANUP() */

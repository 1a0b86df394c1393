/* Memory of processes into a page writer, by several threads.  Threads: an object belongs to one
 * thread; it starts its own. */
#pragma once

#include "base/err.h"
#include "store/page_writer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Consecutive pages of one process. */
struct copier_piece {
    pid_t pid;
    uint64_t address;
    struct page_input *input;
    uint64_t first; /* page of the input */
    unsigned n;     /* 1..MEMORY_CHUNK_PAGES */
    bool lost;      /* could not be read */
};

struct copier {
    struct copier_piece *list;
    size_t n;
};

void copier_add(struct copier *c, pid_t pid, uint64_t address, uint64_t pages,
                struct page_input *input, uint64_t first);

/* Read memory of a process that stands still, also what it may not read itself.
 * errors  RC_NOT_FOUND, RC_DENIED, RC_IO */
enum rc copier_read(pid_t pid, uint64_t address, void *to, size_t len, struct err *err);

/* Threads that are of use on this machine. */
unsigned copier_threads(void);

/* Read all pieces and give them to the writer.
 * lenient  the processes run: a piece that cannot be read is lost, and not given
 * errors   what storing met; not lenient: RC_NOT_FOUND, RC_DENIED, RC_IO (reading) */
enum rc copier_run(struct copier *c, struct page_writer *w, bool lenient, struct err *err);

void copier_done(struct copier *c);

/* Memory of processes into a page writer, by several threads.  Threads: an object belongs to one
 * thread; it starts its own. */
#pragma once

#include "base/cancel.h"
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
    const struct cancel *cancel; /* ends it early, or NULL */
};

void copier_add(struct copier *c, pid_t pid, uint64_t address, uint64_t pages,
                struct page_input *input, uint64_t first);

/* The process that was read last; a thread has one. */
struct copier_source {
    pid_t pid; /* 0: none */
    int file;  /* its memory, while pid is not 0 */
};

/* Read memory, also what the process itself may not read.  Not by process_vm_readv(): that pins
 * pages, and one that is shared with a child copy-on-write is copied for it, and stays so.
 * errors  RC_NOT_FOUND, RC_DENIED, RC_IO */
enum rc copier_read(struct copier_source *s, pid_t pid, uint64_t address, void *to, size_t len,
                    struct err *err);
void copier_source_done(struct copier_source *s); /* for CLEANUP() */

/* Threads that are of use on this machine. */
unsigned copier_threads(void);

/* Read all pieces and give them to the writer.
 * lenient  the processes run: a piece that cannot be read is lost, and not given
 * errors   what storing met; RC_CANCELLED; not lenient: RC_NOT_FOUND, RC_DENIED, RC_IO (reading) */
enum rc copier_run(struct copier *c, struct page_writer *w, bool lenient, struct err *err);

void copier_done(struct copier *c);

/* Reading ahead for the objects of a remote storage: who reads one from front to back in small
 * pieces, perhaps with several threads, gets them out of memory, while blocks are fetched by
 * several connections.  Who jumps about is not served, and nothing is fetched in vain for him.
 *
 * Memory: AHEAD_SLOTS blocks for all objects together.
 * Threads: safe. */
#pragma once

#include "backend/pool.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AHEAD_BLOCK ((size_t)1 << 20)
#define AHEAD_SLOTS 64U
#define AHEAD_READ_MAX (4 * AHEAD_BLOCK) /* a longer read is no small piece */

struct ahead;

/* Fetch exactly `len` bytes of an object.  Called from several threads. */
typedef enum rc ahead_fetch(void *object, uint64_t offset, void *data, size_t len, struct err *err);

/* What is known of an object's reader; zeroed at first.  Guarded by the ahead. */
struct ahead_reader {
    uint64_t high; /* where the furthest read has ended */
    unsigned run;  /* reads in a row near it */
};

/* pool: borrowed.  The result is the caller's, ahead_freep(), before the pool's end. */
struct ahead *ahead_new(struct pool *pool, ahead_fetch *fetch);
void ahead_freep(struct ahead **a);
/* See backend_before_fork(). */
void ahead_before_fork(struct ahead *a);
void ahead_after_fork(struct ahead *a);

/* Read, if the reader goes from front to back.
 * object  its address is its name
 * returns false: not served, read it yourself; also when a fetch has failed */
bool ahead_read(struct ahead *a, void *object, struct ahead_reader *r, uint64_t size,
                uint64_t offset, void *data, size_t len);
/* Drop what is kept of an object; waits for fetches.  Nobody may be reading it. */
void ahead_forget(struct ahead *a, const void *object);

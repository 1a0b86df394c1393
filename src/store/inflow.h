/* An object that is read once, from front to back and in small pieces, by several threads: blocks
 * of it are fetched by others before anybody asks for them.
 *
 * It only helps: what could not be fetched is read from the object itself by who wants it.
 *
 * Memory: INFLOW_SLOTS blocks.
 * Threads: reading for any number, the rest is for the owner; it has threads of its own.
 */
#pragma once

#include "backend/backend.h"

#define INFLOW_BLOCK ((size_t)1 << 20)
#define INFLOW_SLOTS 48U

struct inflow;

/* Begin to fetch.
 * o        borrowed until inflow_freep()
 * begin    where reading begins: from there on every byte must be read once, by threads of which
 *          each goes forwards, and none waits for another
 * threads  at least 1
 * returns  the caller's; NULL when no thread can be started */
struct inflow *inflow_new(struct backend_object *o, uint64_t begin, unsigned threads);
/* Exactly these bytes.  errors as backend_read() */
enum rc inflow_read(struct inflow *f, uint64_t offset, void *data, size_t len, struct err *err);
/* Ends the threads: waits for what is being fetched.  NULL is fine. */
void inflow_freep(struct inflow **flow);

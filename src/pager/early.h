/* Chunks of the working set on their way into a program: which are to come, which are expanded,
 * which are given.
 *
 * Until CRIU has made the processes there is nobody to give pages to; by then as many chunks as fit
 * a budget are read, verified and expanded.  Their memory goes back piece by piece as they are
 * given, so that a program and what is kept for it never take more together than the program alone
 * will.
 *
 * Threads: an owner's lock guards every call but early_data(), of a chunk that the caller has
 * taken.
 */
#pragma once

#include "store/workingset.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EARLY_NONE SIZE_MAX

struct early;

/* set     borrowed; may be NULL: then there is never anything to do
 * budget  bytes for what is expanded before there is somebody to give it to */
struct early *early_new(const struct workingset *set, size_t budget);
void early_freep(struct early **p);

/* Take the next chunk to be expanded before it can be given; EARLY_NONE: no more fit. */
size_t early_expand(struct early *e);
/* It is.  good: false: it could not be; whoever gives it tries again */
void early_expanded(struct early *e, size_t chunk, bool good);
/* Take the next chunk to be given; EARLY_NONE: others have the last in hand, or all are given. */
size_t early_give(struct early *e);
/* Take this chunk to be given, because somebody waits for it.  False: it is given, or in hand. */
bool early_give_this(struct early *e, size_t chunk);
/* It is.  Returns whether it was the last. */
bool early_given(struct early *e, size_t chunk);
/* Whether somebody has it in hand: then who waits for it need only wait. */
bool early_in_hand(const struct early *e, size_t chunk);
/* The chunk that a page is in; EARLY_NONE: in none. */
size_t early_find(const struct early *e, uint32_t stream, uint64_t page);
/* Room for a chunk that was taken to be expanded, MEMORY_CHUNK bytes; of one that was taken to be
 * given its pages, or NULL: it was not expanded. */
uint8_t *early_data(const struct early *e, size_t chunk);

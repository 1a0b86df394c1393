/* A hold on the packs of a store: who is about to refer to packs holds them together with others,
 * who collects holds them alone.
 *
 * In a directory it is a flock on packs/, which the kernel ends with its holder.
 *
 * In an object store, where nobody is told of a death, it is an object
 * `holds/<shared|alone>-<seconds since 1970>-<random>`.  Each side first writes its own, then lists
 * the others'; a listing shows all that was written before it began (backend.h), so of a capture
 * and a collector at the same time at least one sees the other: the collector gives up, the capture
 * waits for a collector.  So no pack is collected between a capture's look at what the store has
 * and its commit.
 *
 * A hold that was left by a crash ends by itself: it counts for HOLD_SHARED_S or HOLD_ALONE_S by
 * the clock of who looks.  Its holder stops relying on it HOLD_MARGIN_S earlier, by its own clocks:
 * a checkpoint is not published, a collector removes nothing more.  That is sound while clocks
 * differ by less than HOLD_MARGIN_S less the time of one request.
 *
 * Threads: a hold belongs to one thread.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>

#define HOLD_SHARED_S (24 * 3600)
#define HOLD_ALONE_S (2 * 3600)
#define HOLD_MARGIN_S 3600

struct store;
struct store_hold;

/* Take a hold.
 * alone   fails when somebody holds the packs; otherwise waits a minute for who holds them alone
 * out     the caller's, store_hold_freep() ends it
 * errors  RC_UNAVAILABLE (who and since when), or what the store met */
enum rc store_hold_packs(struct store *s, bool alone, struct store_hold **out, struct err *err);

/* Whether the hold can still be relied upon.  errors RC_TIMEOUT */
enum rc store_hold_check(const struct store_hold *h, struct err *err);

void store_hold_freep(struct store_hold **p);

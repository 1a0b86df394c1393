/* Pages of memory maps into new packs, as a plan says (repack_plan.h), and the maps that then take
 * the place of the old ones.
 *
 * Nothing that exists is changed: the old maps go on to be true as long as the old packs are there.
 *
 * Threads: one at a time.
 */
#pragma once

#include "backend/backend.h"
#include "store/domain.h"
#include "store/page_reader.h"
#include "store/repack_plan.h"

struct page_mover;

/* For maps of one domain.
 * b       where the packs go; b, plan and d must outlive the mover
 * d       the domain that the packs are of, NULL = none
 * returns the caller's, page_mover_freep() */
struct page_mover *page_mover_new(struct backend *b, const struct repack_plan *plan,
                                  const struct domain *d);
void page_mover_freep(struct page_mover **p);

/* Write what moves of a map's pages and has not moved yet, in the order in which a restore needs
 * them.
 * r       of that map of the plan
 * done    counted up atomically by the bytes of pages that were written; may be NULL
 * errors  RC_CORRUPT (what is there is damaged), or what the storage met */
enum rc page_mover_take(struct page_mover *m, size_t map, const struct page_reader *r,
                        uint64_t *done, struct err *err);
/* No more will be taken.
 * written  bytes of the new packs
 * durable  on RC_OK they are on disk */
enum rc page_mover_finish(struct page_mover *m, uint64_t *written, struct err *err);
/* What a map becomes, after page_mover_finish(): the same pages where they are now.
 * out     the caller's, memory_done() */
enum rc page_mover_map(struct page_mover *m, size_t map, struct memory *out, struct err *err);

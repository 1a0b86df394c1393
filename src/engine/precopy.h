/* Memory that is read before the freeze, while the program runs, so that only what it has written
 * meanwhile is left to be copied.
 *
 * In rounds: the tree stands still for some milliseconds, in which the kernel is asked what has
 * been written since the last round and all pages are protected (container/written.h); then it
 * runs, and what was written is copied, torn or not.  Of a page that was written while it was
 * copied the kernel knows it.
 *
 * Why nothing stale is ever used: a copy was made after the page was protected, and is in use only
 * if the kernel said at each stop since then, and says at the end, with the tree frozen, that the
 * page is still protected, in a mapping that was registered all the time.  Whoever wrote the page
 * after it was protected has taken that away before; and a copy from before the first such write is
 * what the page holds.  Of each round's table only what was confirmed is carried to the next
 * (engine/known.h); what could not be read is in no table.
 *
 * Threads: an object belongs to one thread; it starts its own.
 */
#pragma once

#include "base/err.h"
#include "container/maps.h"
#include "container/pages.h"
#include "engine/earlier.h"
#include "engine/known.h"
#include "store/page_writer.h"

#include <stdint.h>
#include <sys/types.h>

struct precopy;

/* Whether memory of this mapping is read ahead: CRIU will leave it to us (criu/hidden.h). */
bool precopy_takes(const struct map *m);

/* Get ready to read the memory of `root` and its descendants.
 * w       must outlive the object
 * out     the caller's, precopy_freep(); until then the kernel keeps watching
 * errors  RC_UNSUPPORTED (kernel or machine) */
enum rc precopy_open(pid_t root, struct page_writer *w, struct precopy **out, struct err *err);

/* One round.  The writer must not be held.
 * out_pages  that were written since the last round, and have been read now
 * errors     what storing met; RC_UNSUPPORTED (a process that cannot be watched: why), RC_DENIED,
 *            RC_CONFLICT, RC_TIMEOUT, RC_NOT_FOUND.  After an error only precopy_freep(). */
enum rc precopy_round(struct precopy *p, uint64_t *out_pages, struct err *err);

/* Rounds until little is left, or as little as can be.
 * e         what was stored of the program before, or NULL; must outlive the object
 * deadline  monotonic ns, for beginning another round; 0 = none
 * errors    of both */
enum rc precopy_run(pid_t root, struct page_writer *w, const struct earlier *e, uint64_t deadline,
                    struct precopy **out, struct err *err);

/* Pages that had been written since the round before when the last one began: what to expect. */
uint64_t precopy_expected(const struct precopy *p);

/* Whether an error only means that it has to be done without: the program takes no harm, and can be
 * copied frozen. */
bool precopy_can_do_without(enum rc rc);

/* With the tree frozen: list pages as pages_scan() does, and confirm what is known of them. */
enum rc precopy_scan(struct precopy *p, pid_t pid, int pagemap, uint64_t start, uint64_t end,
                     pages_visit *visit, void *arg, struct err *err);
/* What has been confirmed of a process, sorted; never NULL. */
const struct known *precopy_confirmed(struct precopy *p, pid_t pid);

void precopy_freep(struct precopy **p);

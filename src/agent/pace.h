/* How often something may happen, for each of many: a few times at once, then one in a while.
 * Threads: safe.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define PACE_KEYS 256 /* that are remembered; the one not seen for longest is forgotten */

struct pace;

/* burst   how often at once, at least 1
 * out     the caller's, pace_freep() */
struct pace *pace_new(unsigned burst, uint64_t period_ns);
void pace_freep(struct pace **p);

/* Whether it may happen now; then it has.
 * now_ns  clock_now() */
bool pace_allows(struct pace *p, const char *key, uint64_t now_ns);

/* Progress of a CRIU operation, seen from outside: the growth of its image files.
 * Threads: watch_start() starts one that calls the engine's progress callback; watch_stop() ends
 * it.
 */
#pragma once

#include <stdint.h>

struct engine;
struct watch;

/* Report the bytes of the page images in `dirfd` against `total` until stopped.  Returns NULL when
 * there is nobody to tell. */
struct watch *watch_start(const struct engine *e, const char *what, int dirfd, uint64_t total);

/* Report a counter that somebody else counts up atomically. */
struct watch *watch_counter(const struct engine *e, const char *what, const uint64_t *counter,
                            uint64_t total);

/* NULL is fine. */
void watch_stop(struct watch *w);

/* Bytes of all page images of a checkpoint directory. */
uint64_t watch_pages_bytes(int dirfd);

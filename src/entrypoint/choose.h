/* Is there something to restore?  Contract: embedded in the image, named by path and hash, or named
 * by the trigger file; in this order.  Threads: the program's main thread only. */
#pragma once

#include "base/err.h"
#include "entrypoint/settings.h"

struct store_entry;

/* Look once.
 * out     the caller's, store_entry_freep()
 * errors  RC_NOT_FOUND (nothing there), others: something is there but cannot be used */
enum rc choose_checkpoint(const struct settings *s, struct store_entry **out, struct err *err);

#define CHOOSE_SAY_EVERY_S 30 /* who waits says so this often */

/* Look once, or, with WAIT_FOR_CHECKPOINT, every second until the time is up;
 * after guard_begin(). */
enum rc choose_or_wait(const struct settings *s, struct store_entry **out, struct err *err);

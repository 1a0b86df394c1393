/* A look ahead before a checkpoint: what the doctor knows to be impossible is refused with its
 * remedy before anything is frozen.  Threads: safe. */
#pragma once

#include "base/err.h"
#include "engine/engine.h"

/* Examine the tree of the request.  Reads /proc only; the tree does not notice.
 * errors  RC_UNSUPPORTED: the first thing that stands against it, why, and what to do; RC_CONFLICT:
 * the same, but it passes.  A check that cannot be made is no error: then the dump shows. */
enum rc preflight(const struct engine_checkpoint_request *req, struct err *err);

/* CRIU's configuration file: the options that its RPC cannot carry. */
#pragma once

#include "base/err.h"
#include "entrypoint/settings.h"

/* Write restore-criu.conf into the work directory (never into the checkpoint, which may be
 * read-only).  A failure is an error: without it the CUDA plugin would silently not be loaded.
 * out_path  the caller's (free) */
enum rc criu_conf_write(const struct settings *s, char **out_path, struct err *err);

/* CRIU's log of a dump.  It names every mapping, descriptor and thread, and would be the largest
 * file of a checkpoint whose memory is packed; there it is kept as one zstd frame. Threads: safe.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#define DUMP_LOG_NAME "dump.log"
#define DUMP_LOG_PACKED "dump.log.zst"
#define DUMP_LOG_MAX ((size_t)256 << 20)

/* Compress it, when CRIU has written all of it.  A log that is absent or too large stays as it is.
 * errors  RC_NO_SPACE, RC_IO */
enum rc dump_log_pack(int dirfd, struct err *err);
/* Its text, however it is kept.  out: empty at first; buf_done()
 * errors  RC_NOT_FOUND, RC_CORRUPT, RC_TOO_BIG, RC_IO */
enum rc dump_log_read(int dirfd, struct buf *out, struct err *err);

/* The standard streams of a dumped tree, from CRIU's images: which of them led out of the tree.
 *
 * For checkpoints of others; ours say so themselves (store/metadata.h).
 * Images are outside bytes.  Threads: safe.
 */
#pragma once

#include "base/err.h"

#include <stdint.h>

enum cr_stream {
    CR_STREAM_OTHER, /* closed, or something that CRIU restores by itself */
    CR_STREAM_PIPE,  /* an anonymous pipe whose other end nobody in the tree holds */
    CR_STREAM_TTY,   /* a terminal */
};

struct cr_stdio {
    enum cr_stream kind[3]; /* of the tree's root: standard input, output, error */
    uint32_t pipe[3];       /* CRIU's number of the pipe */
};

/* Look at the tree's root.
 * errors  RC_NOT_FOUND (no images), RC_CORRUPT, RC_TOO_BIG, RC_IO */
enum rc cr_stdio_load(int dirfd, struct cr_stdio *out, struct err *err);

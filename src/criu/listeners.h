/* The TCP listeners of a checkpoint: the ports that its tree needs.
 *
 * Images are outside bytes: every length is checked, memory is bounded.
 * Threads: none shared.
 */
#pragma once

#include "base/err.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cr_listener {
    struct in6_addr address; /* IPv4 as ::ffff:a.b.c.d */
    uint16_t port;
    bool v6_only;
    bool shares; /* it was opened with SO_REUSEPORT: others may listen there too */
};

/* Read the listeners of a directory of images.
 * out     the caller's (free), by port
 * errors  RC_CORRUPT, RC_TOO_BIG, RC_IO; a tree without listeners has none: RC_OK */
enum rc cr_listeners_load(int dirfd, struct cr_listener **out, size_t *out_n, struct err *err);

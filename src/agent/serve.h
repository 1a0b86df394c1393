/* The agent's HTTP listener: GET /health and GET /metrics, nothing that changes anything.
 * Threads: it has one of its own. */
#pragma once

#include "agent/metrics.h"
#include "base/err.h"

#include <stdint.h>

struct serve;

/* address  "[HOST]:PORT"; port 0 is any free one
 * node     for /health; borrowed, as `metrics`, until serve_stopp()
 * out      the caller's, serve_stopp()
 * errors   RC_INVALID (address), RC_IO (it cannot be listened on) */
enum rc serve_start(const char *address, const char *node, struct metrics *metrics,
                    struct serve **out, struct err *err);
void serve_stopp(struct serve **s);

/* The port it listens on. */
uint16_t serve_port(const struct serve *s);

/* Unary gRPC calls over an HTTP client that speaks HTTP/2 without TLS (http_options.h2c).
 *
 * One message out, one message back; what is in them is the caller's.  Compressed messages are not
 * asked for.  Threads: as the client's.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "net/http.h"

#include <stddef.h>
#include <stdint.h>

struct grpc_call {
    const char *method; /* "/runtime.v1.RuntimeService/Version" */
    const void *message;
    size_t len;
    bool repeat;       /* it may be sent again when it is not known what became of it */
    uint64_t deadline; /* clock_now() at which it is given up, also by the server; 0 = never */
};

/* out     the answer's message is appended; its limit is the limit for the message
 * errors  those of http_do(); RC_CORRUPT (no gRPC came back); what grpc_status_rc() says of the
 *         server's status, with its message */
enum rc grpc_do(struct http_client *c, const struct grpc_call *call, struct buf *out,
                struct err *err);

/* The code for a status of gRPC, 0..16. */
enum rc grpc_status_rc(unsigned status);

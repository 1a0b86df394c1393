#include "net/grpc.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/num.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_HEAD 5 /* whether it is compressed, and the length */
#define STATUS_MAX 16

enum rc grpc_status_rc(unsigned status)
{
    static const enum rc codes[STATUS_MAX + 1] = {
        [0] = RC_OK,           [1] = RC_CANCELLED, [2] = RC_IO,           [3] = RC_INVALID,
        [4] = RC_TIMEOUT,      [5] = RC_NOT_FOUND, [6] = RC_EXISTS,       [7] = RC_DENIED,
        [8] = RC_TOO_BIG,      [9] = RC_CONFLICT,  [10] = RC_CONFLICT,    [11] = RC_INVALID,
        [12] = RC_UNSUPPORTED, [13] = RC_IO,       [14] = RC_UNAVAILABLE, [15] = RC_CORRUPT,
        [16] = RC_DENIED};
    return status <= STATUS_MAX ? codes[status] : RC_IO;
}

static void frame(const struct grpc_call *call, struct buf *out)
{
    const unsigned char head[FRAME_HEAD] = {
        0, (unsigned char)(call->len >> 24), (unsigned char)(call->len >> 16),
        (unsigned char)(call->len >> 8), (unsigned char)call->len};
    buf_add(out, head, sizeof(head));
    buf_add(out, call->message, call->len);
}

static enum rc unframe(const struct buf *body, struct buf *out, struct err *err)
{
    const unsigned char *p = (const unsigned char *)body->data;
    if (body->len < FRAME_HEAD)
        return err_set(err, RC_CORRUPT, "the answer holds no message");
    size_t len = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
    if (p[0] != 0)
        return err_set(err, RC_UNSUPPORTED, "the answer is compressed, which was not asked for");
    if (len != body->len - FRAME_HEAD)
        return err_set(err, RC_CORRUPT, "the answer's message has %zu bytes, not %zu as it says",
                       body->len - FRAME_HEAD, len);
    buf_add(out, p + FRAME_HEAD, len);
    return out->overflowed ? err_set(err, RC_TOO_BIG, "the answer is too long") : RC_OK;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The server's own words; they come percent-encoded. */
static void add_message(const char *text, struct buf *out)
{
    for (const char *p = text; *p; p++) {
        int high = *p == '%' ? hex_digit(p[1]) : -1, low = high >= 0 ? hex_digit(p[2]) : -1;
        char c = *p;
        if (low >= 0) {
            const unsigned char byte = (unsigned char)((unsigned)high << 4 | (unsigned)low);
            memcpy(&c, &byte, 1);
            p += 2;
        }
        if (c == '\n' || c == '\r' || c == '\0')
            c = ' ';
        buf_add(out, &c, 1);
    }
}

static enum rc judge(const struct http_response *a, struct err *err)
{
    const char *text = http_header(a, "grpc-status"), *said = http_header(a, "grpc-message");
    uint64_t status = 0;
    if (a->status != 200)
        return err_set(err, http_status_rc(a->status) ? http_status_rc(a->status) : RC_CORRUPT,
                       "status %u: is it a gRPC server?", a->status);
    if (!text || num_parse_u64(text, 0, UINT32_MAX, &status, NULL) != RC_OK)
        return err_set(err, RC_CORRUPT, "the answer ends without a status of gRPC");
    if (status == 0)
        return RC_OK;
    CLEANUP(buf_done) struct buf words = BUF_INIT;
    add_message(said ? said : "", &words);
    return err_set(err, grpc_status_rc((unsigned)status), "%.400s (gRPC status %u)",
                   buf_str(&words), (unsigned)status);
}

enum rc grpc_do(struct http_client *c, const struct grpc_call *call, struct buf *out,
                struct err *err)
{
    CLEANUP(http_response_done) struct http_response a = {0};
    CLEANUP(buf_done) struct buf body = {.max = call->len + FRAME_HEAD + 1};
    CLEANUP(mem_freep) char *url = mem_asprintf("http://localhost%s", call->method);
    char timeout[48] = "";
    const char *headers[3] = {"Content-Type: application/grpc", "TE: trailers"};
    struct http_request r = {.method = "POST",
                             .url = url,
                             .headers = headers,
                             .n_headers = 2,
                             .body_max = buf_max(out) + FRAME_HEAD,
                             .repeat = call->repeat ? HTTP_REPEAT_YES : HTTP_REPEAT_NO,
                             .deadline = call->deadline};
    if (call->len > UINT32_MAX)
        return err_set(err, RC_TOO_BIG, "%s: the message is too long", call->method);
    if (call->deadline) {
        (void)snprintf(timeout, sizeof(timeout), "grpc-timeout: %dm",
                       clock_poll_ms(call->deadline));
        headers[r.n_headers++] = timeout;
    }
    frame(call, &body);
    r.body = body.data;
    r.body_len = body.len;
    enum rc rc = http_do(c, &r, &a, err);
    if (!rc)
        rc = judge(&a, err);
    if (!rc)
        rc = unframe(&a.body, out, err);
    return rc ? err_ctx(err, rc, "%s", call->method) : RC_OK;
}

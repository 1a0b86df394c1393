/* Requests and answers of chrek-gpu: what parses says the same again when it is written. */
#include "base/compiler.h"
#include "base/mem.h"
#include "gpu/message.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void request(const char *text, size_t size)
{
    CLEANUP(mem_freep) struct gpu_request *a = mem_zalloc(sizeof(*a)), *b = mem_zalloc(sizeof(*b));
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    if (gpu_request_parse(text, size, a, NULL) != RC_OK)
        return;
    gpu_request_format(a, &out);
    if (gpu_request_parse(out.data, out.len, b, NULL) != RC_OK || memcmp(a, b, sizeof(*a)) != 0)
        abort();
}

static void reply(const char *text, size_t size)
{
    CLEANUP(mem_freep) struct gpu_reply *a = mem_zalloc(sizeof(*a)), *b = mem_zalloc(sizeof(*b));
    CLEANUP(buf_done) struct buf one = BUF_INIT;
    CLEANUP(buf_done) struct buf two = BUF_INIT;
    if (gpu_reply_parse(text, size, a, NULL) != RC_OK)
        return;
    gpu_reply_format(a, &one);
    if (gpu_reply_parse(one.data, one.len, b, NULL) != RC_OK)
        abort();
    gpu_reply_format(b, &two);
    if (strcmp(one.data, two.data) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    request((const char *)data, size);
    reply((const char *)data, size);
    return 0;
}

/* XML from servers, base64 and URLs: whatever they are, an answer, within bounds. */
#include "backend/url.h"
#include "base/buf.h"
#include "base/mem.h"
#include "codec/base64.h"
#include "codec/xml.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum rc look(void *arg, const char *path, const char *text, struct err *err)
{
    (void)arg, (void)err;
    if (path[0] != '/' || strlen(path) >= XML_PATH_MAX || strlen(text) > XML_TEXT_MAX)
        abort();
    return RC_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf bytes = BUF_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(buf_done) struct buf again = BUF_INIT;
    (void)!xml_read("input", (const char *)data, size, look, NULL, &err);
    if (!base64_parse((const char *)data, size, &bytes, &err)) {
        base64_format(buf_str(&bytes), bytes.len, &text);
        if (base64_parse(buf_str(&text), text.len, &again, &err) || again.len != bytes.len ||
            memcmp(buf_str(&again), buf_str(&bytes), bytes.len) != 0)
            abort();
    }
    CLEANUP(mem_freep) char *url = mem_alloc(size + 1);
    memcpy(url, data, size);
    url[size] = '\0';
    CLEANUP(backend_url_done) struct backend_url u = {.scheme = NULL};
    if (!backend_url_parse(url, &u, &err) && (!u.scheme || !u.host || !u.path))
        abort();
    return 0;
}

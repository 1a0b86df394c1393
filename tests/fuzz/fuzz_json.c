/* What parses is written, and read and written again the same. */
#include "base/compiler.h"
#include "codec/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void rewrite(yyjson_doc *doc, struct buf *out)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *copy = yyjson_doc_mut_copy(doc, NULL);
    if (!copy)
        abort();
    json_write(copy, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct err err = ERR_INIT;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(json_docp) yyjson_doc *again = NULL;
    CLEANUP(buf_done) struct buf one = BUF_INIT;
    CLEANUP(buf_done) struct buf two = BUF_INIT;
    enum rc rc = json_parse("input", (const char *)data, len, &doc, &err);
    if (rc) {
        if (rc != RC_CORRUPT || doc || !err.msg[0])
            abort();
        return 0;
    }
    rewrite(doc, &one);
    if (json_parse("output", buf_str(&one), one.len, &again, NULL) != RC_OK)
        abort();
    rewrite(again, &two);
    if (one.len != two.len || memcmp(one.data, two.data, one.len) != 0)
        abort();
    yyjson_val *root = yyjson_doc_get_root(doc);
    (void)json_str(root, "name", "");
    (void)json_u64(root, "size", 0);
    (void)json_bool(root, "success", false);
    return 0;
}

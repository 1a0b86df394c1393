#include "codec/json.h"

#include "base/compiler.h"
#include "codec/utf8.h"

#include <stdlib.h>

enum rc json_parse(const char *what, const char *text, size_t len, yyjson_doc **out,
                   struct err *err)
{
    yyjson_read_err bad;
    yyjson_doc *doc =
        yyjson_read_opts((char *)(uintptr_t)text, len, YYJSON_READ_NOFLAG, NULL, &bad);
    if (!doc)
        return err_set(err, RC_CORRUPT, "%s is no JSON: %s at byte %zu", what, bad.msg, bad.pos);
    if (!yyjson_is_obj(yyjson_doc_get_root(doc))) {
        yyjson_doc_free(doc);
        return err_set(err, RC_CORRUPT, "%s is no JSON object", what);
    }
    *out = doc;
    return RC_OK;
}

const char *json_str(yyjson_val *obj, const char *key, const char *fallback)
{
    const char *s = yyjson_get_str(yyjson_obj_get(obj, key));
    return s ? s : fallback;
}

uint64_t json_u64(yyjson_val *obj, const char *key, uint64_t fallback)
{
    yyjson_val *v = yyjson_obj_get(obj, key);
    return yyjson_is_uint(v) ? yyjson_get_uint(v) : fallback;
}

bool json_bool(yyjson_val *obj, const char *key, bool fallback)
{
    yyjson_val *v = yyjson_obj_get(obj, key);
    return yyjson_is_bool(v) ? yyjson_get_bool(v) : fallback;
}

void json_write(yyjson_mut_doc *doc, struct buf *out)
{
    size_t len = 0;
    char *text = yyjson_mut_write(
        doc, YYJSON_WRITE_PRETTY_TWO_SPACES | YYJSON_WRITE_ALLOW_INVALID_UNICODE, &len);
    if (!text)
        abort();              /* only for want of memory, or a document that we built wrong */
    utf8_add(out, text, len); /* arguments and paths may hold anything, JSON may not */
    free(text);
}

void json_docp(yyjson_doc **doc)
{
    yyjson_doc_free(STEAL(*doc));
}

void json_mut_docp(yyjson_mut_doc **doc)
{
    yyjson_mut_doc_free(STEAL(*doc));
}

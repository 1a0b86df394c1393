#include "agent/answer.h"

#include "base/compiler.h"
#include "codec/json.h"

yyjson_mut_doc *answer_new(enum rc rc, const struct err *err)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    (void)yyjson_mut_obj_add_int(doc, o, "rc", (int)rc);
    if (rc)
        (void)yyjson_mut_obj_add_str(doc, o, "error", err->msg);
    return doc;
}

enum rc answer_parse(const struct buf *text, yyjson_doc **doc, struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *d = NULL;
    *doc = NULL;
    enum rc rc = json_parse("the worker's answer", buf_str(text), text->len, &d, err);
    if (rc)
        return rc;
    yyjson_val *o = yyjson_doc_get_root(d);
    uint64_t code = json_u64(o, "rc", RC_COUNT_);
    if (code >= RC_COUNT_)
        return err_set(err, RC_CORRUPT, "the worker's answer has no code");
    if (code)
        rc = err_set(err, (enum rc)code, "%.480s", json_str(o, "error", "no reason given"));
    *doc = STEAL(d);
    return rc;
}

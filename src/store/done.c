#include "store/done.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "codec/json.h"

#include <stdlib.h>

void done_format(const struct done *d, struct buf *out)
{
    char now[CLOCK_RFC3339_LEN];
    clock_rfc3339(now);
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    (void)yyjson_mut_obj_add_str(doc, o, "checkpoint_id", d->checkpoint_id);
    (void)yyjson_mut_obj_add_str(doc, o, "checkpoint_path", d->checkpoint_path);
    (void)yyjson_mut_obj_add_str(doc, o, "timestamp", now);
    (void)yyjson_mut_obj_add_bool(doc, o, "success", d->success);
    if (d->error && *d->error)
        (void)yyjson_mut_obj_add_str(doc, o, "error", d->error);
    json_write(doc, out);
}

enum rc done_check(const char *text, size_t len, struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    enum rc rc = json_parse(DONE_NAME, text, len, &doc, err);
    if (rc)
        return rc;
    yyjson_val *root = yyjson_doc_get_root(doc);
    yyjson_val *success = yyjson_obj_get(root, "success");
    if (!yyjson_is_bool(success))
        return err_set(err, RC_CORRUPT, DONE_NAME " does not say whether the checkpoint succeeded");
    if (yyjson_get_bool(success))
        return RC_OK;
    return err_set(err, RC_INVALID, "the attempt failed: %.300s",
                   json_str(root, "error", "no reason recorded"));
}

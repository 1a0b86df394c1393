#include "exchange/origin.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "codec/json.h"
#include "exchange/members.h"

#include <stdlib.h>
#include <string.h>

void origin_add(struct origin *o, const char *path, const char *name, unsigned mode, int64_t mtime)
{
    if ((o->n & (o->n - 1)) == 0)
        o->members = mem_realloc(o->members, (o->n ? o->n * 2 : 1) * sizeof(*o->members));
    o->members[o->n++] =
        (struct origin_member){mem_strdup(path), mem_strdup(name), mode & 0777, mtime};
}

void origin_format(const struct origin *o, struct buf *out)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc), *list = yyjson_mut_arr(doc);
    yyjson_mut_doc_set_root(doc, root);
    (void)yyjson_mut_obj_add_uint(doc, root, "format", 1);
    (void)yyjson_mut_obj_add_str(doc, root, "engine", o->engine ? o->engine : "");
    (void)yyjson_mut_obj_add_val(doc, root, "members", list);
    for (size_t i = 0; i < o->n; i++) {
        const struct origin_member *m = &o->members[i];
        yyjson_mut_val *v = yyjson_mut_arr_add_obj(doc, list);
        (void)yyjson_mut_obj_add_str(doc, v, "path", m->path);
        (void)yyjson_mut_obj_add_str(doc, v, "name", m->name);
        (void)yyjson_mut_obj_add_uint(doc, v, "mode", m->mode);
        (void)yyjson_mut_obj_add_sint(doc, v, "mtime", m->mtime);
    }
    json_write(doc, out);
}

static bool is_file_name(const char *name)
{
    return name && *name && *name != '.' && !strchr(name, '/');
}

enum rc origin_parse(const char *text, size_t len, struct origin *out, struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(origin_done) struct origin o = {.engine = NULL};
    enum rc rc = json_parse(ORIGIN_NAME, text, len, &doc, err);
    if (rc)
        return rc;
    yyjson_val *root = yyjson_doc_get_root(doc), *list = yyjson_obj_get(root, "members"), *v;
    if (json_u64(root, "format", 0) != 1)
        return err_set(err, RC_UNSUPPORTED, ORIGIN_NAME " is of a newer chrek");
    o.engine = mem_strdup(json_str(root, "engine", ""));
    size_t i, max;
    yyjson_arr_foreach(list, i, max, v)
    {
        const char *path = json_str(v, "path", NULL), *name = json_str(v, "name", NULL);
        if (!path || !is_file_name(name))
            return err_set(err, RC_CORRUPT, ORIGIN_NAME " names no file");
        rc = members_check_path(path, err);
        if (rc)
            return err_ctx(err, rc, ORIGIN_NAME);
        origin_add(&o, path, name, (unsigned)json_u64(v, "mode", 0600),
                   yyjson_get_sint(yyjson_obj_get(v, "mtime")));
    }
    *out = o;
    o = (struct origin){.engine = NULL};
    return RC_OK;
}

void origin_done(struct origin *o)
{
    for (size_t i = 0; i < o->n; i++) {
        free(o->members[i].path);
        free(o->members[i].name);
    }
    free(o->members);
    free(o->engine);
    *o = (struct origin){.engine = NULL};
}

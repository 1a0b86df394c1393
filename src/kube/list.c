/* Lists, page by page, and watches, line by line. */
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "codec/json.h"
#include "kube/client_priv.h"

#include <stdlib.h>
#include <string.h>

#define PAGE 50
#define PAGE_MAX ((size_t)128 << 20) /* bytes of an answer; objects have at most 1.5 MB each */
#define EVENT_MAX ((size_t)4 << 20)  /* of a watch: an object, or a bit more */
#define LIST_NS (120 * CLOCK_S)
#define WATCH_S 300
#define WATCH_SLACK_S 30 /* after which a server that does not end a watch is taken for dead */

static void add_query(const struct kube_collection *c, struct buf *out)
{
    buf_adds(out, c->path);
    buf_adds(out, "?");
    if (c->labels) {
        buf_adds(out, "labelSelector=");
        http_escape(c->labels, "", out);
        buf_adds(out, "&");
    }
    if (c->fields) {
        buf_adds(out, "fieldSelector=");
        http_escape(c->fields, "", out);
        buf_adds(out, "&");
    }
}

static enum rc copy_version(const char *from, char *to, struct err *err)
{
    if (!from || !*from || strlen(from) >= KUBE_VERSION_MAX)
        return err_set(err, RC_CORRUPT, "the API server's answer has no resource version");
    memcpy(to, from, strlen(from) + 1);
    return RC_OK;
}

static yyjson_val *metadata_of(yyjson_val *object)
{
    return yyjson_obj_get(object, "metadata");
}

/* ---- list ---- */

/* One page.  next: where the next one begins, in and out; empty at the end. */
static enum rc list_page(struct kube *k, const struct kube_collection *c, struct buf *next,
                         kube_take *take, void *arg, char *out_version, struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(buf_done) struct buf path = BUF_INIT;
    const char *const headers[] = {"Accept: application/json"};
    add_query(c, &path);
    buf_addf(&path, "limit=%u", c->page ? c->page : PAGE);
    if (next->len > 0) {
        buf_adds(&path, "&continue=");
        http_escape(buf_str(next), "", &path);
    }
    struct http_request r = {.method = "GET",
                             .headers = headers,
                             .n_headers = 1,
                             .body_max = PAGE_MAX,
                             .deadline = clock_now() + LIST_NS};
    enum rc rc = kube_send(k, &r, buf_str(&path), &doc, err);
    if (rc)
        return rc;
    yyjson_val *root = yyjson_doc_get_root(doc), *item;
    rc = copy_version(json_str(metadata_of(root), "resourceVersion", NULL), out_version, err);
    size_t i, max;
    yyjson_arr_foreach(yyjson_obj_get(root, "items"), i, max, item)
    {
        if (!rc)
            rc = take(arg, item, err);
    }
    buf_cut(next, 0);
    buf_adds(next, json_str(metadata_of(root), "continue", ""));
    return rc;
}

enum rc kube_list(struct kube *k, const struct kube_collection *c, kube_take *take, void *arg,
                  char *out_version, struct err *err)
{
    CLEANUP(buf_done) struct buf next = {.max = 64 << 10};
    enum rc rc;
    do
        rc = list_page(k, c, &next, take, arg, out_version, err);
    while (!rc && next.len > 0);
    return rc ? err_ctx(err, rc, "list %s", c->path) : RC_OK;
}

/* ---- watch ---- */

struct watch {
    const struct kube_watcher *w;
    char *version;
    struct buf line;
};

static enum rc take_change(const struct watch *w, const char *type, yyjson_val *object,
                           struct err *err)
{
    static const struct {
        const char *name;
        enum kube_change change;
    } types[] = {{"ADDED", KUBE_ADDED}, {"MODIFIED", KUBE_MODIFIED}, {"DELETED", KUBE_DELETED}};
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (strcmp(type, types[i].name) == 0)
            return w->w->change(w->w->arg, types[i].change, object, err);
    return strcmp(type, "BOOKMARK") == 0
               ? RC_OK
               : err_set(err, RC_CORRUPT, "the API server tells of '%.40s'", type);
}

static enum rc take_line(struct watch *w, struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    enum rc rc =
        json_parse("an event of the API server", buf_str(&w->line), w->line.len, &doc, err);
    if (rc)
        return rc;
    yyjson_val *root = yyjson_doc_get_root(doc), *object = yyjson_obj_get(root, "object");
    const char *type = json_str(root, "type", "");
    if (strcmp(type, "ERROR") == 0)
        return kube_refused(object, (unsigned)json_u64(object, "code", 500), err);
    rc = take_change(w, type, object, err);
    /* Only what has been taken is behind us. */
    return rc ? rc
              : copy_version(json_str(metadata_of(object), "resourceVersion", NULL), w->version,
                             err);
}

/* For http_sink: an event is a line. */
static enum rc take_bytes(void *arg, const void *data, size_t len, struct err *err)
{
    struct watch *w = arg;
    const char *p = data, *end = p + len;
    while (p < end) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        buf_add(&w->line, p, (size_t)((stop ? stop : end) - p));
        if (w->line.overflowed)
            return err_set(err, RC_TOO_BIG, "an event of more than %zu MiB", EVENT_MAX >> 20);
        if (!stop)
            return RC_OK;
        p = stop + 1;
        enum rc rc = w->line.len > 0 ? take_line(w, err) : RC_OK;
        buf_cut(&w->line, 0);
        if (rc)
            return rc;
    }
    return RC_OK;
}

enum rc kube_watch(struct kube *k, const struct kube_collection *c, const struct kube_watcher *w,
                   char *version, struct err *err)
{
    CLEANUP(buf_done) struct buf path = BUF_INIT;
    struct watch state = {.w = w, .version = version, .line = {.max = EVENT_MAX}};
    unsigned seconds = c->watch_s ? c->watch_s : WATCH_S;
    const char *const headers[] = {"Accept: application/json"};
    add_query(c, &path);
    buf_addf(&path,
             "watch=true&allowWatchBookmarks=true&timeoutSeconds=%u&resourceVersion=", seconds);
    http_escape(version, "", &path);
    struct http_request r = {.method = "GET",
                             .headers = headers,
                             .n_headers = 1,
                             .sink = take_bytes,
                             .sink_arg = &state,
                             .repeat = HTTP_REPEAT_NO, /* from where it broke off, not the start */
                             .stall_timeout_ns = (seconds + WATCH_SLACK_S) * CLOCK_S,
                             .deadline = clock_now() + (seconds + WATCH_SLACK_S) * CLOCK_S,
                             .cancel = w->cancel};
    enum rc rc = kube_send(k, &r, buf_str(&path), NULL, err);
    buf_done(&state.line);
    return rc ? err_ctx(err, rc, "watch %s", c->path) : RC_OK;
}

#include "kube/event.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/rand.h"
#include "codec/json.h"
#include "codec/utf8.h"

#include <string.h>

#define MESSAGE_MAX 1024
#define NAME_MAX_BYTES 200 /* of the pod's name in ours: a name may have 253 */

static void add(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key, const char *value)
{
    (void)yyjson_mut_obj_add_strcpy(doc, o, key, value);
}

static yyjson_mut_val *add_object(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key)
{
    return yyjson_mut_obj_add_obj(doc, o, key);
}

static void add_pod(yyjson_mut_doc *doc, yyjson_mut_val *root, const struct kube_event *e)
{
    yyjson_mut_val *o = add_object(doc, root, "involvedObject");
    add(doc, o, "apiVersion", "v1");
    add(doc, o, "kind", "Pod");
    add(doc, o, "name", e->name);
    add(doc, o, "namespace", e->name_space);
    add(doc, o, "uid", e->uid);
}

static void add_text(yyjson_mut_doc *doc, yyjson_mut_val *root, const struct kube_event *e)
{
    CLEANUP(buf_done) struct buf message = BUF_INIT;
    size_t len = strlen(e->message);
    while (len > MESSAGE_MAX ||
           (len > 0 && len < strlen(e->message) && ((unsigned char)e->message[len] & 0xc0) == 0x80))
        len--; /* not in the middle of a character */
    utf8_add(&message, e->message, len);
    add(doc, root, "type", e->warning ? "Warning" : "Normal");
    add(doc, root, "reason", e->reason);
    add(doc, root, "message", buf_str(&message));
}

enum rc kube_event_post(struct kube *k, const struct kube_event *e, struct err *err)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    char now[CLOCK_RFC3339_LEN], hex[17];
    yyjson_mut_doc_set_root(doc, root);
    clock_rfc3339(now);
    rand_hex(hex, sizeof(hex) - 1);
    CLEANUP(mem_freep)
    char *name = mem_asprintf("%.*s.%s", NAME_MAX_BYTES, e->name, hex);
    CLEANUP(mem_freep) char *path = mem_asprintf("/api/v1/namespaces/%s/events", e->name_space);
    add(doc, root, "apiVersion", "v1");
    add(doc, root, "kind", "Event");
    yyjson_mut_val *meta = add_object(doc, root, "metadata");
    add(doc, meta, "name", name);
    add(doc, meta, "namespace", e->name_space);
    add_pod(doc, root, e);
    add_text(doc, root, e);
    yyjson_mut_val *source = add_object(doc, root, "source");
    add(doc, source, "component", e->component);
    add(doc, source, "host", e->node);
    add(doc, root, "reportingComponent", e->component);
    add(doc, root, "reportingInstance", e->node);
    add(doc, root, "firstTimestamp", now);
    add(doc, root, "lastTimestamp", now);
    (void)yyjson_mut_obj_add_int(doc, root, "count", 1);
    return kube_do(k, KUBE_CREATE, path, doc, NULL, err);
}

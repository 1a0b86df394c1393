#include "codec/yaml.h"

#include "base/compiler.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define DEPTH_MAX 100

struct conversion {
    yaml_document_t *from;
    yyjson_mut_doc *to;
    unsigned nodes;
    const char *what;
    struct err *err;
};

static bool is_one_of(const char *text, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(text, *list) == 0)
            return true;
    return false;
}

static yyjson_mut_val *plain(yyjson_mut_doc *to, const char *text, size_t len)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const trues[] = {"true", "True", "TRUE", NULL};
    static const char *const falses[] = {"false", "False", "FALSE", NULL};
    if (is_one_of(text, nulls))
        return yyjson_mut_null(to);
    if (is_one_of(text, trues) || is_one_of(text, falses))
        return yyjson_mut_bool(to, is_one_of(text, trues));
    /* Only what is a number in JSON, too: neither 0x10 nor .inf. */
    const char *digits = text + (text[0] == '-');
    errno = 0;
    if (*digits && digits[strspn(digits, "0123456789")] == '\0') {
        long long value = strtoll(text, NULL, 10);
        if (errno == 0)
            return yyjson_mut_sint(to, value);
    }
    return yyjson_mut_strncpy(to, text, len);
}

static enum rc convert(struct conversion *c, int index, unsigned depth, yyjson_mut_val **out);

static enum rc convert_list(struct conversion *c, const yaml_node_t *node, unsigned depth,
                            yyjson_mut_val *list)
{
    enum rc rc = RC_OK;
    const yaml_node_item_t *item = node->data.sequence.items.start;
    for (; !rc && item < node->data.sequence.items.top; item++) {
        yyjson_mut_val *v = NULL;
        rc = convert(c, *item, depth, &v);
        if (!rc)
            (void)yyjson_mut_arr_append(list, v);
    }
    return rc;
}

static enum rc convert_map(struct conversion *c, const yaml_node_t *node, unsigned depth,
                           yyjson_mut_val *map)
{
    enum rc rc = RC_OK;
    const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
    for (; !rc && pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(c->from, pair->key);
        yyjson_mut_val *v = NULL;
        if (!key || key->type != YAML_SCALAR_NODE)
            return err_set(c->err, RC_CORRUPT, "%s: line %zu: a key that is no word", c->what,
                           node->start_mark.line + 1);
        rc = convert(c, pair->value, depth, &v);
        if (!rc)
            (void)yyjson_mut_obj_add(
                map,
                yyjson_mut_strncpy(c->to, (char *)key->data.scalar.value, key->data.scalar.length),
                v);
    }
    return rc;
}

static enum rc convert(struct conversion *c, int index, unsigned depth, yyjson_mut_val **out)
{
    const yaml_node_t *node = yaml_document_get_node(c->from, index);
    if (!node || depth > DEPTH_MAX || ++c->nodes > YAML_NODES_MAX)
        return err_set(c->err, RC_TOO_BIG, "%s: more than %d values, or nested too deep", c->what,
                       YAML_NODES_MAX);
    if (node->type == YAML_SEQUENCE_NODE) {
        *out = yyjson_mut_arr(c->to);
        return convert_list(c, node, depth + 1, *out);
    }
    if (node->type == YAML_MAPPING_NODE) {
        *out = yyjson_mut_obj(c->to);
        return convert_map(c, node, depth + 1, *out);
    }
    const char *text = (const char *)node->data.scalar.value;
    size_t len = node->data.scalar.length;
    bool is_plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    *out = is_plain ? plain(c->to, text, len) : yyjson_mut_strncpy(c->to, text, len);
    return RC_OK;
}

static enum rc convert_document(const char *what, yaml_document_t *from, yyjson_doc **out,
                                struct err *err)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *to = yyjson_mut_doc_new(NULL);
    struct conversion c = {.from = from, .to = to, .what = what, .err = err};
    yyjson_mut_val *root = NULL;
    if (!yaml_document_get_root_node(from))
        return err_set(err, RC_CORRUPT, "%s is empty", what);
    enum rc rc = convert(&c, 1, 0, &root); /* a document's root is its first node */
    if (rc)
        return rc;
    yyjson_mut_doc_set_root(to, root);
    yyjson_doc *doc = yyjson_mut_doc_imut_copy(to, NULL);
    if (!doc)
        abort(); /* only for want of memory */
    *out = doc;
    return RC_OK;
}

enum rc yaml_parse(const char *what, const char *text, size_t len, yyjson_doc **out,
                   struct err *err)
{
    yaml_parser_t parser;
    yaml_document_t document;
    enum rc rc = RC_OK;
    if (!yaml_parser_initialize(&parser))
        abort(); /* only for want of memory */
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    if (!yaml_parser_load(&parser, &document)) {
        rc = err_set(err, RC_CORRUPT, "%s is no YAML: %s in line %zu", what,
                     parser.problem ? parser.problem : "an error", parser.problem_mark.line + 1);
    } else {
        rc = convert_document(what, &document, out, err);
        yaml_document_delete(&document);
    }
    yaml_parser_delete(&parser);
    return rc;
}

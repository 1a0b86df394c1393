/* Any texts are refused, or give JSON that says the same texts, and a hash that the order of
 * parameters does not change.  Input: texts that end with NUL. */
#include "base/compiler.h"
#include "codec/identity.h"
#include "codec/json.h"

#include <stdlib.h>
#include <string.h>

#define TEXTS 24

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void must_say(yyjson_val *object, const char *key, const char *text)
{
    must(strcmp(json_str(object, key, ""), text) == 0);
}

static void check(const struct identity *i)
{
    struct identity_parameter turned[TEXTS];
    struct identity other = *i;
    char one[IDENTITY_HASH_LEN + 1], two[IDENTITY_HASH_LEN + 1];
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    if (identity_format(i, &text, NULL) != RC_OK) {
        must(text.len == 0 && identity_hash(i, one, NULL) != RC_OK);
        return;
    }
    must(json_parse("an identity", buf_str(&text), text.len, &doc, NULL) == RC_OK);
    yyjson_val *root = yyjson_doc_get_root(doc);
    must_say(root, "model", i->model);
    must_say(root, "backendFramework", i->backend_framework);
    must_say(root, "dynamoVersion", i->dynamo_version);
    must_say(root, "dtype", i->dtype);
    must(json_u64(root, "maxModelLen", 0) == i->max_model_len);
    yyjson_val *parameters = yyjson_obj_get(root, "extraParameters");
    must(yyjson_obj_size(parameters) == i->n_parameters);
    for (size_t k = 0; k < i->n_parameters; k++) {
        must_say(parameters, i->parameters[k].key, i->parameters[k].value);
        turned[i->n_parameters - 1 - k] = i->parameters[k];
    }
    other.parameters = turned;
    must(identity_hash(i, one, NULL) == RC_OK && identity_hash(&other, two, NULL) == RC_OK);
    must(strlen(one) == IDENTITY_HASH_LEN && strcmp(one, two) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct identity_parameter parameters[TEXTS];
    char *copy = malloc(len + 1), *texts[TEXTS];
    size_t n = 0;
    must(copy != NULL);
    if (len)
        memcpy(copy, data, len);
    copy[len] = '\0';
    for (char *p = copy; n < TEXTS; n++) {
        texts[n] = p;
        p += strlen(p);
        p += p < copy + len;
    }
    struct identity i = {.model = texts[0],
                         .backend_framework = texts[1],
                         .dynamo_version = texts[2],
                         .dtype = texts[3],
                         .tensor_parallel_size = len % 3,
                         .max_model_len = len,
                         .parameters = parameters};
    for (size_t k = 4; k + 1 < TEXTS && *texts[k]; k += 2)
        parameters[i.n_parameters++] = (struct identity_parameter){texts[k], texts[k + 1]};
    check(&i);
    free(copy);
    return 0;
}

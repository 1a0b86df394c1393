/* The identity of a model server, and the hash by which equal ones share a checkpoint.
 *
 * The hash is an interface: bit for bit that of ChReK, over the canonical JSON below.  A change
 * here makes every checkpoint that is addressed by it unfindable. Threads: safe.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define IDENTITY_HASH_LEN 16 /* of [0-9a-f], without the NUL */

struct identity_parameter {
    const char *key, *value; /* UTF-8 */
};

/* Texts are UTF-8, borrowed; NULL counts as empty.  They are hashed as they are: nothing is trimmed
 * and no case is folded. */
struct identity {
    const char *model, *backend_framework;
    const char *dynamo_version;                            /* left out when empty */
    uint64_t tensor_parallel_size, pipeline_parallel_size; /* 0 counts as 1 */
    const char *dtype;                                     /* left out when empty */
    uint64_t max_model_len;                                /* left out when 0 */
    const struct identity_parameter *parameters;           /* in any order, no key twice */
    size_t n_parameters;                                   /* 0: left out */
};

/* Append the canonical JSON: keys in fixed order, parameters by the bytes of their keys, no blanks,
 * no newline.  The control characters, `"`, `\`, `<`, `>`, `&`, U+2028 and U+2029 are escaped.
 * out     as before unless RC_OK
 * errors  RC_INVALID (a text is no UTF-8, or a key is there twice), RC_TOO_BIG (the buffer's limit)
 */
enum rc identity_format(const struct identity *i, struct buf *out, struct err *err);

/* The first 16 hexadecimal digits of the SHA-256 of the canonical JSON.
 * errors  as identity_format() */
enum rc identity_hash(const struct identity *i, char out[IDENTITY_HASH_LEN + 1], struct err *err);

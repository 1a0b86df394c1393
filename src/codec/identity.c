#include "codec/identity.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "codec/utf8.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

static void add_ascii(struct buf *out, char c)
{
    static const char plain[] = "\"\\\n\r\t\b\f", letter[] = "\"\\nrtbf";
    const char *at = strchr(plain, c); /* c is never NUL */
    if (at)
        buf_addf(out, "\\%c", letter[at - plain]);
    else if ((unsigned char)c < 0x20 || c == '<' || c == '>' || c == '&')
        buf_addf(out, "\\u%04x", (unsigned)(unsigned char)c);
    else
        buf_add(out, &c, 1);
}

static enum rc add_text(struct buf *out, const char *name, const char *text, struct err *err)
{
    buf_adds(out, "\"");
    for (size_t left = strlen(text), n; left; text += n, left -= n) {
        n = utf8_len(text, left);
        if (n == 0)
            return err_set(err, RC_INVALID, "%s of an identity is no UTF-8", name);
        if (n == 1)
            add_ascii(out, *text);
        else if (n == 3 &&
                 (memcmp(text, "\xe2\x80\xa8", 3) == 0 || memcmp(text, "\xe2\x80\xa9", 3) == 0))
            buf_addf(out, "\\u202%c", text[2] == '\xa8' ? '8' : '9');
        else
            buf_add(out, text, n);
    }
    buf_adds(out, "\"");
    return RC_OK;
}

static enum rc add_member(struct buf *out, const char *key, const char *text, struct err *err)
{
    buf_addf(out, "\"%s\":", key);
    return add_text(out, key, or_empty(text), err);
}

static int by_key(const void *a, const void *b)
{
    const struct identity_parameter *x = a, *y = b;
    return strcmp(or_empty(x->key), or_empty(y->key));
}

static enum rc add_parameters(struct buf *out, const struct identity *i, struct err *err)
{
    size_t n = i->n_parameters;
    CLEANUP(mem_freep) struct identity_parameter *sorted = mem_alloc(n * sizeof(*sorted));
    memcpy(sorted, i->parameters, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), by_key);
    buf_adds(out, ",\"extraParameters\":{");
    enum rc rc = RC_OK;
    for (size_t k = 0; !rc && k < n; k++) {
        if (k && by_key(&sorted[k - 1], &sorted[k]) == 0)
            return err_set(err, RC_INVALID, "parameter '%.64s' of an identity is there twice",
                           or_empty(sorted[k].key));
        buf_adds(out, k ? "," : "");
        rc = add_text(out, "a parameter", or_empty(sorted[k].key), err);
        buf_adds(out, ":");
        if (!rc)
            rc = add_text(out, "a parameter", or_empty(sorted[k].value), err);
    }
    buf_adds(out, "}");
    return rc;
}

static enum rc add_all(struct buf *out, const struct identity *i, struct err *err)
{
    buf_adds(out, "{");
    enum rc rc = add_member(out, "model", i->model, err);
    buf_adds(out, ",");
    if (!rc)
        rc = add_member(out, "backendFramework", i->backend_framework, err);
    if (!rc && *or_empty(i->dynamo_version)) {
        buf_adds(out, ",");
        rc = add_member(out, "dynamoVersion", i->dynamo_version, err);
    }
    buf_addf(out, ",\"tensorParallelSize\":%" PRIu64 ",\"pipelineParallelSize\":%" PRIu64,
             i->tensor_parallel_size ? i->tensor_parallel_size : 1,
             i->pipeline_parallel_size ? i->pipeline_parallel_size : 1);
    if (!rc && *or_empty(i->dtype)) {
        buf_adds(out, ",");
        rc = add_member(out, "dtype", i->dtype, err);
    }
    if (i->max_model_len)
        buf_addf(out, ",\"maxModelLen\":%" PRIu64, i->max_model_len);
    if (!rc && i->n_parameters)
        rc = add_parameters(out, i, err);
    buf_adds(out, "}");
    return rc;
}

enum rc identity_format(const struct identity *i, struct buf *out, struct err *err)
{
    size_t before = out->len;
    bool overflowed = out->overflowed;
    enum rc rc = add_all(out, i, err);
    if (!rc && out->overflowed)
        rc = err_set(err, RC_TOO_BIG, "an identity has more than %zu bytes", buf_max(out));
    if (rc) {
        buf_cut(out, before);
        out->overflowed = overflowed;
    }
    return rc;
}

enum rc identity_hash(const struct identity *i, char out[IDENTITY_HASH_LEN + 1], struct err *err)
{
    static const char hex[] = "0123456789abcdef";
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    uint8_t digest[SHA256_DIGEST_LENGTH];
    enum rc rc = identity_format(i, &text, err);
    if (rc)
        return rc;
    if (EVP_Digest(text.data, text.len, digest, NULL, EVP_sha256(), NULL) != 1)
        return err_set(err, RC_IO, "the crypto library cannot compute SHA-256");
    for (size_t k = 0; k < IDENTITY_HASH_LEN; k++)
        out[k] = hex[k % 2 ? digest[k / 2] & 15 : digest[k / 2] >> 4];
    out[IDENTITY_HASH_LEN] = '\0';
    return RC_OK;
}

#include "codec/keyfile.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/rand.h"
#include "codec/hex.h"
#include "codec/secret.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT 1
#define HEADER 64

static const char magic[8] = {'c', 'h', 'r', 'e', 'k', 'k', 'e', 'y'};
static const char prefix[] = "chrek-key-1:";

enum rc keyfile_parse(const void *data, size_t len, uint8_t out[CIPHER_KEY], struct err *err)
{
    const char *text = data;
    size_t n = sizeof(prefix) - 1;
    if (len == CIPHER_KEY) {
        memcpy(out, data, CIPHER_KEY);
        return RC_OK;
    }
    if (len >= n && memcmp(text, prefix, n) == 0) {
        text += n;
        len -= n;
    }
    if (len && text[len - 1] == '\n')
        len--;
    if (len && text[len - 1] == '\r')
        len--;
    uint8_t key[CIPHER_KEY];
    bool good = hex_parse(text, len, key, CIPHER_KEY);
    if (good)
        memcpy(out, key, CIPHER_KEY);
    secret_wipe(key, sizeof(key));
    return good ? RC_OK
                : err_set(err, RC_INVALID,
                          "no key: want 32 bytes or 64 hexadecimal digits, as `chrek key generate` "
                          "writes them");
}

void keyfile_format(const uint8_t key[CIPHER_KEY], struct buf *out)
{
    char hex[2 * CIPHER_KEY + 1];
    hex_format(key, CIPHER_KEY, hex);
    buf_adds(out, prefix);
    buf_adds(out, hex);
    buf_adds(out, "\n");
    secret_wipe(hex, sizeof(hex));
}

enum rc keyfile_wrapping_id(const uint8_t key[CIPHER_KEY], struct key_id *out, struct err *err)
{
    return cipher_derive(key, NULL, 0, "chrek wrapping key id 1", out->bytes, KEYFILE_ID, err);
}

enum rc keyfile_data_id(const uint8_t key[CIPHER_KEY], struct key_id *out, struct err *err)
{
    return cipher_derive(key, NULL, 0, "chrek data key id 1", out->bytes, KEYFILE_ID, err);
}

/* ---- wrapped keys ---- */

static void put(uint8_t *at, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static void make_header(const struct wrapped_key *w, uint8_t out[HEADER])
{
    memset(out, 0, HEADER);
    memcpy(out, magic, sizeof(magic));
    put(out + 8, FORMAT, 4);
    put(out + 12, (uint64_t)w->kind, 4);
    memcpy(out + 16, w->data.bytes, KEYFILE_ID);
    memcpy(out + 32, w->wrapping.bytes, KEYFILE_ID);
    put(out + 48, w->made_at, 8);
    put(out + 56, w->blob_len, 4);
}

void wrapped_key_format(const struct wrapped_key *w, struct buf *out)
{
    uint8_t header[HEADER];
    make_header(w, header);
    buf_add(out, header, HEADER);
    buf_add(out, w->blob, w->blob_len);
}

enum rc wrapped_key_parse(const void *data, size_t len, struct wrapped_key *out, struct err *err)
{
    const uint8_t *at = data;
    if (len < HEADER || memcmp(at, magic, sizeof(magic)) != 0)
        return err_set(err, RC_CORRUPT, "no wrapped key");
    if (get(at + 8, 4) > FORMAT)
        return err_set(err, RC_UNSUPPORTED, "a wrapped key of a newer chrek");
    uint64_t kind = get(at + 12, 4), blob_len = get(at + 56, 4);
    if (get(at + 8, 4) != FORMAT || (kind != KEYFILE_BY_FILE && kind != KEYFILE_BY_SERVICE) ||
        blob_len == 0 || blob_len > KEYFILE_BLOB_MAX || blob_len != len - HEADER ||
        get(at + 60, 4) != 0)
        return err_set(err, RC_CORRUPT, "a wrapped key that contradicts itself");
    struct wrapped_key w = {.kind = (enum keyfile_kind)kind,
                            .made_at = get(at + 48, 8),
                            .blob = mem_alloc((size_t)blob_len),
                            .blob_len = (size_t)blob_len};
    memcpy(w.data.bytes, at + 16, KEYFILE_ID);
    memcpy(w.wrapping.bytes, at + 32, KEYFILE_ID);
    memcpy(w.blob, at + HEADER, w.blob_len);
    *out = w;
    return RC_OK;
}

void wrapped_key_done(struct wrapped_key *w)
{
    free(w->blob);
    *w = (struct wrapped_key){.kind = KEYFILE_BY_FILE};
}

#define SEALED (8 + CIPHER_KEY + CIPHER_TAG) /* the nonce's random part in front */

/* The AES key of one wrapping. */
static enum rc aes_key(const uint8_t wrapping[CIPHER_KEY], const struct key_id *data,
                       uint8_t out[CIPHER_KEY], struct err *err)
{
    return cipher_derive(wrapping, data->bytes, KEYFILE_ID, "chrek key wrapping 1", out, CIPHER_KEY,
                         err);
}

enum rc wrapped_key_seal(const uint8_t wrapping[CIPHER_KEY], const uint8_t data[CIPHER_KEY],
                         uint64_t made_at, struct wrapped_key *out, struct err *err)
{
    CLEANUP(cipher_freep) struct cipher *c = NULL;
    CLEANUP(secret_freep) uint8_t *key = secret_alloc(CIPHER_KEY);
    CLEANUP(wrapped_key_done)
    struct wrapped_key w = {
        .kind = KEYFILE_BY_FILE, .made_at = made_at, .blob = mem_alloc(SEALED), .blob_len = SEALED};
    uint8_t header[HEADER];
    enum rc rc = keyfile_data_id(data, &w.data, err);
    if (!rc)
        rc = keyfile_wrapping_id(wrapping, &w.wrapping, err);
    if (!rc)
        rc = aes_key(wrapping, &w.data, key, err);
    if (!rc)
        rc = cipher_new(&c, err);
    if (rc)
        return rc;
    make_header(&w, header);
    rand_bytes(w.blob, 8);
    struct cipher_message m = {key, get(w.blob, 8), header, HEADER};
    rc = cipher_seal(c, &m, data, CIPHER_KEY, w.blob + 8, w.blob + 8 + CIPHER_KEY, err);
    if (rc)
        return rc;
    *out = w;
    w.blob = NULL;
    return RC_OK;
}

enum rc wrapped_key_open(const struct wrapped_key *w, const uint8_t wrapping[CIPHER_KEY],
                         uint8_t out[CIPHER_KEY], struct err *err)
{
    CLEANUP(cipher_freep) struct cipher *c = NULL;
    CLEANUP(secret_freep) uint8_t *key = secret_alloc(CIPHER_KEY);
    CLEANUP(secret_freep) uint8_t *data = secret_alloc(CIPHER_KEY);
    struct key_id id;
    uint8_t header[HEADER];
    enum rc rc = keyfile_wrapping_id(wrapping, &id, err);
    if (rc)
        return rc;
    if (w->kind != KEYFILE_BY_FILE || memcmp(id.bytes, w->wrapping.bytes, KEYFILE_ID) != 0)
        return err_set(err, RC_DENIED, "wrapped with another key");
    if (w->blob_len != SEALED)
        return err_set(err, RC_CORRUPT, "a wrapped key is damaged");
    make_header(w, header);
    rc = aes_key(wrapping, &w->data, key, err);
    if (!rc)
        rc = cipher_new(&c, err);
    if (rc)
        return rc;
    struct cipher_message m = {key, get(w->blob, 8), header, HEADER};
    rc = cipher_open(c, &m, w->blob + 8, CIPHER_KEY, w->blob + 8 + CIPHER_KEY, data, NULL);
    if (!rc)
        rc = keyfile_data_id(data, &id, err);
    if (rc == RC_CORRUPT || (!rc && memcmp(id.bytes, w->data.bytes, KEYFILE_ID) != 0))
        return err_set(err, RC_CORRUPT, "a wrapped key is damaged");
    if (!rc)
        memcpy(out, data, CIPHER_KEY);
    return rc;
}

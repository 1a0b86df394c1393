#include "codec/cipher.h"

#include "base/compiler.h"
#include "base/mem.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define DERIVED_MAX 64

struct cipher {
    EVP_CIPHER *aes;
    EVP_CIPHER_CTX *ctx;
};

static enum rc broken(struct err *err)
{
    return err_set(err, RC_IO, "the crypto library does not do its work");
}

enum rc cipher_new(struct cipher **out, struct err *err)
{
    CLEANUP(cipher_freep) struct cipher *c = mem_zalloc(sizeof(*c));
    /* openssl.cnf of whatever image we run in must not choose our code. */
    (void)OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    c->aes = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    c->ctx = EVP_CIPHER_CTX_new();
    if (!c->aes || !c->ctx)
        return broken(err);
    *out = STEAL(c);
    return RC_OK;
}

void cipher_freep(struct cipher **p)
{
    struct cipher *c = STEAL(*p);
    if (!c)
        return;
    EVP_CIPHER_CTX_free(c->ctx); /* cleanses */
    EVP_CIPHER_free(c->aes);
    free(c);
}

static bool begin(struct cipher *c, const struct cipher_message *m, int encrypt)
{
    uint8_t nonce[CIPHER_NONCE] = {0};
    int n = 0;
    for (size_t i = 0; i < 8; i++)
        nonce[4 + i] = (uint8_t)(m->position >> (8 * i));
    return EVP_CipherInit_ex2(c->ctx, c->aes, m->key, nonce, encrypt, NULL) == 1 &&
           (m->bound_len == 0 ||
            EVP_CipherUpdate(c->ctx, NULL, &n, m->bound, (int)m->bound_len) == 1);
}

enum rc cipher_seal(struct cipher *c, const struct cipher_message *m, const void *data, size_t len,
                    void *out, uint8_t tag[CIPHER_TAG], struct err *err)
{
    int n = 0, rest = 0;
    uint8_t none[16];
    if (len > INT_MAX || m->bound_len > INT_MAX || !begin(c, m, 1) ||
        EVP_CipherUpdate(c->ctx, out, &n, data, (int)len) != 1 || n != (int)len ||
        EVP_CipherFinal_ex(c->ctx, none, &rest) != 1 ||
        EVP_CIPHER_CTX_ctrl(c->ctx, EVP_CTRL_AEAD_GET_TAG, CIPHER_TAG, tag) != 1)
        return broken(err);
    return RC_OK;
}

enum rc cipher_open(struct cipher *c, const struct cipher_message *m, const void *data, size_t len,
                    const uint8_t tag[CIPHER_TAG], void *out, struct err *err)
{
    int n = 0, rest = 0;
    uint8_t none[16], copy[CIPHER_TAG];
    memcpy(copy, tag, CIPHER_TAG);
    if (len > INT_MAX || m->bound_len > INT_MAX || !begin(c, m, 0) ||
        EVP_CIPHER_CTX_ctrl(c->ctx, EVP_CTRL_AEAD_SET_TAG, CIPHER_TAG, copy) != 1 ||
        EVP_CipherUpdate(c->ctx, out, &n, data, (int)len) != 1)
        return broken(err);
    if (n != (int)len || EVP_CipherFinal_ex(c->ctx, none, &rest) != 1)
        return err_set(err, RC_CORRUPT, "these bytes are not what was encrypted with this key");
    return RC_OK;
}

enum rc cipher_derive(const uint8_t key[CIPHER_KEY], const void *salt, size_t salt_len,
                      const char *purpose, void *out, size_t out_len, struct err *err)
{
    (void)OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_HKDF, NULL);
    uint8_t made[DERIVED_MAX];
    size_t n = out_len;
    bool good =
        ctx && out_len <= sizeof(made) && salt_len <= INT_MAX && EVP_PKEY_derive_init(ctx) == 1 &&
        EVP_PKEY_CTX_set_hkdf_md(ctx, EVP_sha256()) == 1 &&
        EVP_PKEY_CTX_set1_hkdf_key(ctx, key, CIPHER_KEY) == 1 &&
        (salt_len == 0 || EVP_PKEY_CTX_set1_hkdf_salt(ctx, salt, (int)salt_len) == 1) &&
        EVP_PKEY_CTX_add1_hkdf_info(ctx, (const unsigned char *)purpose, (int)strlen(purpose)) ==
            1 &&
        EVP_PKEY_derive(ctx, made, &n) == 1 && n == out_len;
    EVP_PKEY_CTX_free(ctx);
    if (good)
        memcpy(out, made, out_len);
    OPENSSL_cleanse(made, sizeof(made));
    return good ? RC_OK : broken(err);
}

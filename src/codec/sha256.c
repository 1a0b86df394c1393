#include "codec/sha256.h"

#include "base/mem.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 64

struct sha256 {
    EVP_MD_CTX *ctx;
};

/* The library fails here only for want of memory, which ends a program as in mem_alloc(). */
static void must(int ok)
{
    if (ok != 1)
        abort();
}

void sha256_of(const void *data, size_t len, uint8_t out[SHA256_LEN])
{
    must(EVP_Digest(len ? data : "", len, out, NULL, EVP_sha256(), NULL));
}

/* RFC 2104 over the digest: the EVP_MAC interface needs a fetch for each call. */
void sha256_hmac(const void *key, size_t key_len, const void *data, size_t len,
                 uint8_t out[SHA256_LEN])
{
    uint8_t k[BLOCK] = {0}, inner[BLOCK], outer[BLOCK];
    if (key_len > BLOCK)
        sha256_of(key, key_len, k);
    else if (key_len > 0)
        memcpy(k, key, key_len);
    for (size_t i = 0; i < BLOCK; i++) {
        inner[i] = k[i] ^ 0x36;
        outer[i] = k[i] ^ 0x5c;
    }
    struct sha256 *s = sha256_new();
    sha256_add(s, inner, BLOCK);
    sha256_add(s, data, len);
    sha256_get(s, out);
    sha256_freep(&s);
    s = sha256_new();
    sha256_add(s, outer, BLOCK);
    sha256_add(s, out, SHA256_LEN);
    sha256_get(s, out);
    sha256_freep(&s);
}

void sha256_hex(const uint8_t digest[SHA256_LEN], char out[SHA256_HEX_LEN + 1])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < SHA256_LEN; i++) {
        out[2 * i] = digits[digest[i] >> 4];
        out[2 * i + 1] = digits[digest[i] & 15];
    }
    out[SHA256_HEX_LEN] = '\0';
}

struct sha256 *sha256_new(void)
{
    struct sha256 *s = mem_zalloc(sizeof(*s));
    s->ctx = EVP_MD_CTX_new();
    must(s->ctx && EVP_DigestInit_ex(s->ctx, EVP_sha256(), NULL) == 1);
    return s;
}

void sha256_add(struct sha256 *s, const void *data, size_t len)
{
    if (len > 0)
        must(EVP_DigestUpdate(s->ctx, data, len));
}

void sha256_get(const struct sha256 *s, uint8_t out[SHA256_LEN])
{
    EVP_MD_CTX *copy = EVP_MD_CTX_new();
    must(copy && EVP_MD_CTX_copy_ex(copy, s->ctx) == 1 && EVP_DigestFinal_ex(copy, out, NULL) == 1);
    EVP_MD_CTX_free(copy);
}

void sha256_freep(struct sha256 **s)
{
    if (*s)
        EVP_MD_CTX_free((*s)->ctx);
    free(*s);
    *s = NULL;
}

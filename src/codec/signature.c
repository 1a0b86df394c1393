#include "codec/signature.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "codec/hex.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char first_line[] = "chrek-signature ";

struct signature_key {
    EVP_PKEY *pkey;
    uint8_t public[SIGNATURE_KEY];
};

static void bio_freep(BIO **b)
{
    (void)BIO_free(*b);
}

static void pkey_freep(EVP_PKEY **k)
{
    EVP_PKEY_free(*k);
}

static void md_freep(EVP_MD_CTX **c)
{
    EVP_MD_CTX_free(*c);
}

static enum rc broken(struct err *err)
{
    return err_set(err, RC_IO, "the crypto library does not do its work");
}

/* ---- the text ---- */

void signature_format(const struct signature *s, struct buf *out)
{
    char signer[2 * SIGNATURE_KEY + 1], bytes[2 * SIGNATURE_BYTES + 1];
    hex_format(s->signer, SIGNATURE_KEY, signer);
    hex_format(s->bytes, SIGNATURE_BYTES, bytes);
    buf_addf(out, "%s1\nsigner %s\ned25519 %s\n", first_line, signer, bytes);
}

/* A line "<word> <digits>\n"; moves *at behind it. */
static bool take_line(const char **at, const char *end, const char *word, void *out, size_t len)
{
    size_t n = strlen(word), digits = 2 * len;
    if ((size_t)(end - *at) < n + digits + 1 || memcmp(*at, word, n) != 0 ||
        !hex_parse(*at + n, digits, out, len) || (*at)[n + digits] != '\n')
        return false;
    *at += n + digits + 1;
    return true;
}

enum rc signature_parse(const char *text, size_t len, struct signature *out, struct err *err)
{
    struct signature s;
    const char *at = text, *end = text + len;
    size_t n = sizeof(first_line) - 1;
    if (len < n + 2 || memcmp(text, first_line, n) != 0)
        return err_set(err, RC_CORRUPT, "no signature");
    if (text[n] != '1' || text[n + 1] != '\n')
        return err_set(err, RC_UNSUPPORTED, "a signature of a newer chrek");
    at += n + 2;
    if (!take_line(&at, end, "signer ", s.signer, SIGNATURE_KEY) ||
        !take_line(&at, end, "ed25519 ", s.bytes, SIGNATURE_BYTES) || at != end)
        return err_set(err, RC_CORRUPT, "no signature");
    *out = s;
    return RC_OK;
}

/* ---- keys ---- */

enum rc signature_generate(struct buf *out_private, struct buf *out_public, struct err *err)
{
    (void)OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    CLEANUP(pkey_freep) EVP_PKEY *k = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    CLEANUP(bio_freep) BIO *private = BIO_new(BIO_s_mem());
    CLEANUP(bio_freep) BIO *public = BIO_new(BIO_s_mem());
    char *text = NULL;
    if (!k || !private || !public ||
        PEM_write_bio_PrivateKey(private, k, NULL, NULL, 0, NULL, NULL) != 1 ||
        PEM_write_bio_PUBKEY(public, k) != 1)
        return broken(err);
    long n = BIO_get_mem_data(private, &text);
    buf_add(out_private, text, (size_t)n);
    OPENSSL_cleanse(text, (size_t)n);
    n = BIO_get_mem_data(public, &text);
    buf_add(out_public, text, (size_t)n);
    return RC_OK;
}

/* Nobody is there to be asked for a password: an encrypted key is refused. */
/* NOLINTNEXTLINE(readability-non-const-parameter): as OpenSSL wants it */
static int no_password(char *buf, int size, int rwflag, void *arg)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    (void)arg;
    return -1;
}

static bool raw_public(const EVP_PKEY *k, uint8_t out[SIGNATURE_KEY])
{
    size_t n = SIGNATURE_KEY;
    return EVP_PKEY_is_a(k, "ED25519") == 1 && EVP_PKEY_get_raw_public_key(k, out, &n) == 1 &&
           n == SIGNATURE_KEY;
}

enum rc signature_key_parse(const char *pem, size_t len, struct signature_key **out,
                            struct err *err)
{
    (void)OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    CLEANUP(signature_key_freep) struct signature_key *k = mem_zalloc(sizeof(*k));
    CLEANUP(bio_freep)
    BIO *bio = len <= SIGNATURE_PEM_MAX ? BIO_new_mem_buf(pem, (int)len) : NULL;
    k->pkey = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
    if (!k->pkey || !raw_public(k->pkey, k->public))
        return err_set(err, RC_INVALID,
                       "it holds no Ed25519 private key in PEM without a password");
    *out = STEAL(k);
    return RC_OK;
}

void signature_key_freep(struct signature_key **p)
{
    struct signature_key *k = STEAL(*p);
    if (!k)
        return;
    EVP_PKEY_free(k->pkey); /* cleanses */
    free(k);
}

/* What is signed: context and data in one piece, as Ed25519 wants it. */
static void *message_of(const void *data, size_t len, size_t *out_len)
{
    size_t n = sizeof(SIGNATURE_CONTEXT) - 1;
    uint8_t *m = mem_alloc(n + len + 1);
    memcpy(m, SIGNATURE_CONTEXT, n);
    if (len)
        memcpy(m + n, data, len);
    *out_len = n + len;
    return m;
}

enum rc signature_make(const struct signature_key *k, const void *data, size_t len,
                       struct signature *out, struct err *err)
{
    struct signature s;
    size_t n = SIGNATURE_BYTES, message_len = 0;
    CLEANUP(md_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    CLEANUP(mem_freep) void *message = message_of(data, len, &message_len);
    if (!ctx || EVP_DigestSignInit_ex(ctx, NULL, NULL, NULL, NULL, k->pkey, NULL) != 1 ||
        EVP_DigestSign(ctx, s.bytes, &n, message, message_len) != 1 || n != SIGNATURE_BYTES)
        return broken(err);
    memcpy(s.signer, k->public, SIGNATURE_KEY);
    *out = s;
    return RC_OK;
}

/* ---- trust ---- */

enum rc signature_trust_add(struct signature_trust *t, const char *pem, size_t len, struct err *err)
{
    (void)OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    CLEANUP(bio_freep)
    BIO *bio = len <= SIGNATURE_PEM_MAX ? BIO_new_mem_buf(pem, (int)len) : NULL;
    size_t before = t->n;
    bool bad = !bio;
    while (!bad) {
        CLEANUP(pkey_freep) EVP_PKEY *k = PEM_read_bio_PUBKEY(bio, NULL, no_password, NULL);
        if (!k)
            break;
        t->keys = mem_realloc(t->keys, (t->n + 1) * sizeof(*t->keys));
        bad = !raw_public(k, t->keys[t->n]);
        t->n += !bad;
    }
    if (!bad && t->n > before)
        return RC_OK;
    t->n = before;
    return err_set(err, RC_INVALID, "it holds no Ed25519 public key in PEM");
}

void signature_trust_done(struct signature_trust *t)
{
    free(t->keys);
    *t = (struct signature_trust){0};
}

enum rc signature_check(const struct signature_trust *t, const struct signature *s,
                        const void *data, size_t len, struct err *err)
{
    size_t i = 0, message_len = 0;
    while (i < t->n && memcmp(t->keys[i], s->signer, SIGNATURE_KEY) != 0)
        i++;
    if (i == t->n) {
        char hex[2 * SIGNATURE_KEY + 1];
        hex_format(s->signer, SIGNATURE_KEY, hex);
        return err_set(err, RC_DENIED,
                       "signed by %.16s..., whom nobody here trusts; add that public key to the "
                       "trust keys if it is one of yours",
                       hex);
    }
    CLEANUP(pkey_freep)
    EVP_PKEY *k = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, t->keys[i], SIGNATURE_KEY);
    CLEANUP(md_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    CLEANUP(mem_freep) void *message = message_of(data, len, &message_len);
    if (!k || !ctx || EVP_DigestVerifyInit_ex(ctx, NULL, NULL, NULL, NULL, k, NULL) != 1)
        return broken(err);
    if (EVP_DigestVerify(ctx, s->bytes, SIGNATURE_BYTES, message, message_len) != 1)
        return err_set(err, RC_CORRUPT, "its signature is not of these bytes");
    return RC_OK;
}

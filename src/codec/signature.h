/* Ed25519 signatures of manifests (RFC 8032).
 *
 * Keys are PEM, as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them. What
 * is signed is SIGNATURE_CONTEXT and then the bytes, so that a key that also signs other things
 * cannot be made to sign a manifest.  A signature is text:
 *
 *     chrek-signature 1
 *     signer <64 hexadecimal digits: the public key>
 *     ed25519 <128 hexadecimal digits>
 *
 * Threads: a key and a trust list may be used by several threads at once.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define SIGNATURE_CONTEXT "chrek manifest signature 1\n"
#define SIGNATURE_KEY 32
#define SIGNATURE_BYTES 64
#define SIGNATURE_TEXT_MAX ((size_t)512)
#define SIGNATURE_PEM_MAX ((size_t)64 << 10)

struct signature {
    uint8_t signer[SIGNATURE_KEY];
    uint8_t bytes[SIGNATURE_BYTES];
};

void signature_format(const struct signature *s, struct buf *out);
/* errors RC_CORRUPT, RC_UNSUPPORTED (a newer format) */
enum rc signature_parse(const char *text, size_t len, struct signature *out, struct err *err);

/* ---- signing ---- */

struct signature_key;

/* A new pair, as PEM.  The private text's buffer is to be wiped by the caller. */
enum rc signature_generate(struct buf *out_private, struct buf *out_public, struct err *err);
/* errors RC_INVALID (no Ed25519 private key, or an encrypted one) */
enum rc signature_key_parse(const char *pem, size_t len, struct signature_key **out,
                            struct err *err);
void signature_key_freep(struct signature_key **p);
enum rc signature_make(const struct signature_key *k, const void *data, size_t len,
                       struct signature *out, struct err *err);

/* ---- checking ---- */

/* Public keys whose signatures count. */
struct signature_trust {
    uint8_t (*keys)[SIGNATURE_KEY];
    size_t n;
};

/* Add every public key of a PEM text.
 * errors RC_INVALID (none in it, or one that is not Ed25519); then nothing was added */
enum rc signature_trust_add(struct signature_trust *t, const char *pem, size_t len,
                            struct err *err);
void signature_trust_done(struct signature_trust *t);

/* errors RC_DENIED (the signer is not trusted), RC_CORRUPT (it is, and did not sign this) */
enum rc signature_check(const struct signature_trust *t, const struct signature *s,
                        const void *data, size_t len, struct err *err);

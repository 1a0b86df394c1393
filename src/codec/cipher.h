/* AES-256-GCM, and keys derived from keys (HKDF-SHA256, RFC 5869).
 *
 * GCM fails if a nonce is used twice under one key.  So no key that encrypts more than one message
 * is ever stored or given: each is derived for one object (a pack, a file, a wrapping) from a salt
 * that is new for that object, and inside the object the nonce is a position that is written once.
 * Who calls cipher_seal() says in his header why his positions do not come twice.
 *
 * Threads: a context belongs to one thread at a time; cipher_derive() is safe.
 */
#pragma once

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define CIPHER_KEY 32 /* bytes */
#define CIPHER_NONCE 12
#define CIPHER_TAG 16

struct cipher;

/* A context without a key.  The caller's, cipher_freep().  errors RC_IO (the library has no AES) */
enum rc cipher_new(struct cipher **out, struct err *err);
/* Also wipes the key schedule. */
void cipher_freep(struct cipher **p);

/* What one message is sealed with. */
struct cipher_message {
    const uint8_t *key; /* CIPHER_KEY bytes */
    uint64_t position;  /* becomes the nonce: 4 zero bytes, then this, little-endian */
    const void *bound;  /* associated data */
    size_t bound_len;
};

/* Encrypt.
 * out  `len` bytes, may be `data`
 * tag  CIPHER_TAG bytes */
enum rc cipher_seal(struct cipher *c, const struct cipher_message *m, const void *data, size_t len,
                    void *out, uint8_t tag[CIPHER_TAG], struct err *err);
/* Decrypt.
 * out     `len` bytes, may be `data`; what is in it after a failure must not be used
 * errors  RC_CORRUPT (not what was sealed: key, position, associated data, bytes or tag) */
enum rc cipher_open(struct cipher *c, const struct cipher_message *m, const void *data, size_t len,
                    const uint8_t tag[CIPHER_TAG], void *out, struct err *err);

/* Derive `out_len` bytes (at most 64) for a purpose.  salt may be NULL when salt_len is 0. */
enum rc cipher_derive(const uint8_t key[CIPHER_KEY], const void *salt, size_t salt_len,
                      const char *purpose, void *out, size_t out_len, struct err *err);

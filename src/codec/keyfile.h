/* Files of keys that wrap other keys, and the wrapped keys.
 *
 * A key file is what `chrek key generate` or a Kubernetes Secret holds: 32 bytes as they are, or 64
 * hexadecimal digits, with or without "chrek-key-1:" in front and a line's end behind.
 *
 * A wrapped key (format 1, docs/formats/encryption.md) is a header of 64 bytes and a blob.  What
 * wraps with a key file encrypts the data key with AES-256-GCM; the blob is then nonce, ciphertext
 * and tag.  A key service returns a blob of its own.
 *
 * Nonces: the AES key of a wrapping is derived from the key file's key with the data key's id as
 * salt, so under one AES key there is one message only, the data key; besides, nonces are random.
 *
 * Threads: safe.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "codec/cipher.h"

#include <stddef.h>
#include <stdint.h>

#define KEYFILE_MAX ((size_t)4096)
#define KEYFILE_ID 16 /* bytes that name a key without telling anything of it */
#define KEYFILE_BLOB_MAX ((size_t)64 << 10)
#define KEYFILE_WRAPPED_MAX (KEYFILE_BLOB_MAX + 64)

struct key_id {
    uint8_t bytes[KEYFILE_ID];
};

/* out     set to the key only on RC_OK
 * errors  RC_INVALID, saying nothing of the content */
enum rc keyfile_parse(const void *data, size_t len, uint8_t out[CIPHER_KEY], struct err *err);
void keyfile_format(const uint8_t key[CIPHER_KEY], struct buf *out);

/* Names of keys: one way, and different for the two kinds. */
enum rc keyfile_wrapping_id(const uint8_t key[CIPHER_KEY], struct key_id *out, struct err *err);
enum rc keyfile_data_id(const uint8_t key[CIPHER_KEY], struct key_id *out, struct err *err);

enum keyfile_kind { KEYFILE_BY_FILE = 1, KEYFILE_BY_SERVICE = 2 };

struct wrapped_key {
    enum keyfile_kind kind;
    struct key_id data;     /* which key is wrapped */
    struct key_id wrapping; /* with which; of a service: random */
    uint64_t made_at;       /* seconds since 1970 */
    uint8_t *blob;          /* the caller's (free) */
    size_t blob_len;        /* 1..KEYFILE_BLOB_MAX */
};

void wrapped_key_format(const struct wrapped_key *w, struct buf *out);
/* out: the caller's, wrapped_key_done().  errors RC_CORRUPT, RC_UNSUPPORTED (a newer format) */
enum rc wrapped_key_parse(const void *data, size_t len, struct wrapped_key *out, struct err *err);
void wrapped_key_done(struct wrapped_key *w);

/* Wrap with a key file's key.  out: the caller's, wrapped_key_done() */
enum rc wrapped_key_seal(const uint8_t wrapping[CIPHER_KEY], const uint8_t data[CIPHER_KEY],
                         uint64_t made_at, struct wrapped_key *out, struct err *err);
/* errors RC_DENIED (wrapped with another key), RC_CORRUPT (damaged) */
enum rc wrapped_key_open(const struct wrapped_key *w, const uint8_t wrapping[CIPHER_KEY],
                         uint8_t out[CIPHER_KEY], struct err *err);

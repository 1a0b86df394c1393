/* SHA-256 and HMAC-SHA256, which cloud storage and registries name and sign things by.  Our own
 * formats use BLAKE3 (digest.h).  Threads: safe; a running hash belongs to one thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SHA256_LEN 32
#define SHA256_HEX_LEN ((size_t)2 * SHA256_LEN) /* without the NUL */

void sha256_of(const void *data, size_t len, uint8_t out[SHA256_LEN]);
void sha256_hmac(const void *key, size_t key_len, const void *data, size_t len,
                 uint8_t out[SHA256_LEN]);
/* Lower case, with a NUL. */
void sha256_hex(const uint8_t digest[SHA256_LEN], char out[SHA256_HEX_LEN + 1]);

/* Bytes that come in pieces. */
struct sha256;
struct sha256 *sha256_new(void);
void sha256_add(struct sha256 *s, const void *data, size_t len);
/* What has been added up to now; more may be added afterwards. */
void sha256_get(const struct sha256 *s, uint8_t out[SHA256_LEN]);
void sha256_freep(struct sha256 **s);

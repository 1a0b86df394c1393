/* A dedup domain: a data key, and the keys that are derived from it.
 *
 *   names   of pages are keyed BLAKE3, so that they tell nothing of the pages, and equal pages of
 *           two domains have different names
 *   packs   each has a key of its own, derived from its name
 *   files   each has a key of its own, derived from a salt in its header
 *
 * Threads: constant after it was made.
 */
#pragma once

#include "base/err.h"
#include "codec/keyfile.h"

#include <stddef.h>
#include <stdint.h>

struct domain;

/* data_key: copied.  out: the caller's, domain_freep() */
enum rc domain_new(const struct key_id *id, const uint8_t data_key[CIPHER_KEY], struct domain **out,
                   struct err *err);
void domain_freep(struct domain **p);
const struct key_id *domain_id(const struct domain *d);

/* 32 bytes, borrowed. */
const uint8_t *domain_name_key(const struct domain *d);
/* errors RC_IO (a child of a fork has no keys) */
enum rc domain_pack_key(const struct domain *d, const char *pack, uint8_t out[CIPHER_KEY],
                        struct err *err);
enum rc domain_file_key(const struct domain *d, const void *salt, size_t len,
                        uint8_t out[CIPHER_KEY], struct err *err);

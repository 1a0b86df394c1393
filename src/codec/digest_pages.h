/* BLAKE3 of many pages of 4 KiB at once.
 *
 * A page alone has four of BLAKE3's chunks, of which a processor could take up to sixteen at a
 * time; several pages side by side fill it, and are named two to three times as fast.
 *
 * Threads: safe.
 */
#pragma once

#include "codec/digest.h"

#include <stddef.h>
#include <stdint.h>

#define DIGEST_PAGE ((size_t)4096)

/* The digest of each page by itself, as digest_of() would give it.
 * key  32 bytes: the keyed hash; NULL: none */
void digest_pages(const uint8_t *key, const void *const *pages, size_t n, struct digest *out);

/* A pack: an object of up to about 64 MiB that holds chunks, shared by all checkpoints of a store.
 *
 *   chunks       one after another, as stored
 *   index        for each chunk: digest of the stored bytes, offset, size, pages, codec
 *                then for each page of each chunk its name (PAGE_NAME_LEN bytes)
 *   footer       64 bytes: number of chunks and of pages, digest of the index, "chrekpak"
 *
 * A restore needs no index: `memory` of the checkpoint has what it takes.  The index serves a
 * capture, to recognise pages that are there already.  Formats: docs/formats/pack.md.
 *
 * Of a domain, chunks and index are encrypted after compression (docs/formats/encryption.md), and
 * where others have a digest of the stored bytes there is the tag of AES-GCM, which serves as well.
 * Nonces: a pack's key is derived from its name, of which 80 bits are drawn at random for one
 * writer and the rest is the time in ms, and the nonce is the offset in the pack, which only grows
 * and is written once.  So a nonce comes twice under a key only if two packs of the same
 * millisecond draw the same 80 bits, and of two such packs a store keeps one.  The name in the key,
 * the offset in the nonce and length, pages and codec as associated data bind a chunk to its place:
 * none can stand in for another.
 *
 * Threads: a writer belongs to one thread.
 */
#pragma once

#include "backend/backend.h"
#include "store/domain.h"
#include "store/memory.h"

#include <stdbool.h>

#define PACK_PREFIX "packs/"
#define PACK_KEY_LEN (sizeof(PACK_PREFIX) + 3 + MEMORY_PACK_NAME_LEN) /* with the NUL */
#define PACK_TARGET ((uint64_t)64 << 20)                              /* bytes of chunks */
#define PACK_INDEX_TARGET ((uint64_t)8 << 20)                         /* bytes of index */
#define PAGE_NAME_LEN 24 /* bytes of the BLAKE3 of a page: collisions cost 2^96 */

struct page_name {
    uint64_t word[PAGE_NAME_LEN / 8];
};

/* The name of a page; d: of which domain, NULL = of none, where everybody can compute it. */
void page_name(const struct domain *d, const void *page, struct page_name *out);
/* The names of several pages, faster.  n: at most MEMORY_CHUNK_PAGES */
void page_name_all(const struct domain *d, const void *const *pages, size_t n,
                   struct page_name *out);

/* "packs/<first two digits>/<name>" */
void pack_key(const char *name, char out[PACK_KEY_LEN]);

/* Which of two packs is the newer one by its name: > 0 the first, 0 about the same. */
int pack_newer(const char *name, const char *other);

struct pack_writer;

/* Begin a pack with a fresh name: random digits, and in the last 12 the time in ms, so that those
 * who look for the newest packs need not open them.
 * d    encrypt for this domain, which must outlive the writer; NULL = as it is
 * out  the caller's; ends with pack_abortp(). */
enum rc pack_begin(struct backend *b, const struct domain *d, struct pack_writer **out,
                   struct err *err);
const char *pack_name(const struct pack_writer *w);
uint64_t pack_size(const struct pack_writer *w);
/* Whether it is time for the next pack: PACK_TARGET or PACK_INDEX_TARGET is reached. */
bool pack_is_full(const struct pack_writer *w);
/* Compress and append a chunk.
 * pages, names  1..MEMORY_CHUNK_PAGES pages, one after another, and their names
 * whole         NULL; or the pages are changes, most of them zero, and this is the digest of what
 *               they are changes to
 * out           everything but the pack's number */
enum rc pack_add(struct pack_writer *w, enum compress_codec codec, const void *pages,
                 const struct page_name *names, unsigned n, const struct digest *whole,
                 struct memory_chunk *out, struct err *err);
/* Write the index; on RC_OK the pack is durable, and its size is what pack_size() says now. */
enum rc pack_commit(struct pack_writer *w, struct err *err);
void pack_abortp(struct pack_writer **p);

/* What a pack holds. */
struct pack_index {
    struct memory_chunk *chunks; /* their pack number is 0 */
    struct page_name *names;     /* of all pages, in order */
    size_t n_chunks, n_names;
};

/* d       the domain that the pack belongs to, NULL = none
 * out     the caller's, pack_index_done()
 * errors  RC_NOT_FOUND, RC_DENIED (it belongs to another domain, or to none), RC_CORRUPT,
 *         RC_UNSUPPORTED */
enum rc pack_read_index(struct backend *b, const struct domain *d, const char *name,
                        struct pack_index *out, uint64_t *out_size, struct err *err);
void pack_index_done(struct pack_index *x);

/* Pages out of a chunk's stored bytes, verified (and decrypted) before; changes are still changes.
 * whole   of changes: the digest of what they are changes to
 * errors  RC_CORRUPT, RC_UNSUPPORTED (codec) */
enum rc pack_expand_chunk(const struct memory_chunk *c, const void *stored, void *out,
                          struct digest *whole, struct err *err);

/* Decrypt a chunk in place.  key: of its pack.  errors RC_CORRUPT */
enum rc pack_open_chunk(struct cipher *cipher, const uint8_t key[CIPHER_KEY],
                        const struct memory_chunk *c, void *data, struct err *err);
/* The index from its bytes: the parser that pack_read_index() uses.
 * data_len  bytes of chunks in front of it */
enum rc pack_index_parse(const void *data, size_t len, uint64_t n_chunks, uint64_t n_names,
                         uint64_t data_len, struct pack_index *out, struct err *err);

#include "store/pack.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/rand.h"
#include "codec/digest_pages.h"
#include "codec/secret.h"

#include <blake3.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char magic[8] = {'c', 'h', 'r', 'e', 'k', 'p', 'a', 'k'};

/* A format is 1, and these. */
#define FORMAT_SEALED 1U
#define FORMAT_CHANGES 2U
#define FORMAT_MAX 4U
#define FOOTER 64
#define ENTRY (DIGEST_LEN + 16)
#define INDEX_MAX ((uint64_t)256 << 20)

void page_name(const struct domain *d, const void *page, struct page_name *out)
{
    blake3_hasher h;
    if (d)
        blake3_hasher_init_keyed(&h, domain_name_key(d));
    else
        blake3_hasher_init(&h);
    blake3_hasher_update(&h, page, MEMORY_PAGE);
    blake3_hasher_finalize(&h, (uint8_t *)out->word, PAGE_NAME_LEN);
}

void page_name_all(const struct domain *d, const void *const *pages, size_t n,
                   struct page_name *out)
{
    struct digest digests[MEMORY_CHUNK_PAGES];
    digest_pages(d ? domain_name_key(d) : NULL, pages, n, digests);
    for (size_t i = 0; i < n; i++)
        memcpy(out[i].word, digests[i].bytes, PAGE_NAME_LEN);
}

void pack_key(const char *name, char out[PACK_KEY_LEN])
{
    (void)snprintf(out, PACK_KEY_LEN, PACK_PREFIX "%.2s/%.32s", name, name);
}

/* ---- encryption ---- */

/* What is bound to a chunk beside its pack (by the key) and its offset (by the nonce). */
struct bound_chunk {
    uint8_t bytes[16];
};

static void put_at(uint8_t *at, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static struct bound_chunk bound_of(const struct memory_chunk *c)
{
    struct bound_chunk b = {"chunk 1"};
    put_at(b.bytes + 8, c->stored, 4);
    put_at(b.bytes + 12, c->pages, 2);
    put_at(b.bytes + 14, c->codec, 2);
    return b;
}

enum rc pack_open_chunk(struct cipher *cipher, const uint8_t key[CIPHER_KEY],
                        const struct memory_chunk *c, void *data, struct err *err)
{
    struct bound_chunk bound = bound_of(c);
    struct cipher_message m = {key, c->offset, bound.bytes, sizeof(bound)};
    return cipher_open(cipher, &m, data, c->stored, c->digest.bytes, data, err);
}

enum rc pack_expand_chunk(const struct memory_chunk *c, const void *stored, void *out,
                          struct digest *whole, struct err *err)
{
    const uint8_t *at = stored;
    size_t len = c->stored;
    if (memory_has_changes(c)) {
        if (len <= DIGEST_LEN)
            return err_set(err, RC_CORRUPT, "a chunk of changes without any");
        memcpy(whole->bytes, at, DIGEST_LEN);
        at += DIGEST_LEN;
        len -= DIGEST_LEN;
    }
    return compress_expand((enum compress_codec)(c->codec & ~MEMORY_CHANGES), at, len, out,
                           c->pages * MEMORY_PAGE, err);
}

/* ---- writing ---- */

struct pack_writer {
    struct cipher *cipher; /* NULL: nothing is encrypted */
    uint8_t *key;          /* of this pack */
    struct backend_upload *upload;
    char name[MEMORY_PACK_NAME_LEN + 1];
    uint64_t size;
    struct buf entries, names;
    uint64_t n_chunks;
    bool changes;     /* some chunk holds them */
    uint8_t *scratch; /* DIGEST_LEN + compress_bound(MEMORY_CHUNK) bytes */
};

static void put(struct buf *b, uint64_t value, size_t bytes)
{
    uint8_t raw[8];
    for (size_t i = 0; i < bytes; i++)
        raw[i] = (uint8_t)(value >> (8 * i));
    buf_add(b, raw, bytes);
}

#define TIME_DIGITS 12

int pack_newer(const char *name, const char *other)
{
    const size_t at = MEMORY_PACK_NAME_LEN - TIME_DIGITS;
    return memcmp(name + at, other + at, TIME_DIGITS);
}

static void make_name(char out[MEMORY_PACK_NAME_LEN + 1])
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    uint64_t ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    rand_hex(out, MEMORY_PACK_NAME_LEN - TIME_DIGITS);
    (void)snprintf(out + MEMORY_PACK_NAME_LEN - TIME_DIGITS, TIME_DIGITS + 1, "%012" PRIx64,
                   ms & 0xffffffffffff);
}

enum rc pack_begin(struct backend *b, const struct domain *d, struct pack_writer **out,
                   struct err *err)
{
    CLEANUP(pack_abortp) struct pack_writer *w = mem_zalloc(sizeof(*w));
    char key[PACK_KEY_LEN];
    w->entries.max = w->names.max = INDEX_MAX;
    w->scratch = mem_alloc(DIGEST_LEN + compress_bound(MEMORY_CHUNK));
    make_name(w->name);
    pack_key(w->name, key);
    enum rc rc = d ? cipher_new(&w->cipher, err) : RC_OK;
    if (!rc && d) {
        w->key = secret_alloc(CIPHER_KEY);
        rc = domain_pack_key(d, w->name, w->key, err);
    }
    if (!rc)
        rc = backend_begin(b, key, &w->upload, err);
    if (!rc)
        *out = STEAL(w);
    return rc;
}

const char *pack_name(const struct pack_writer *w)
{
    return w->name;
}

uint64_t pack_size(const struct pack_writer *w)
{
    return w->size;
}

bool pack_is_full(const struct pack_writer *w)
{
    return w->size >= PACK_TARGET || w->entries.len + w->names.len >= PACK_INDEX_TARGET;
}

static enum rc append(struct pack_writer *w, const void *data, size_t len, struct err *err)
{
    enum rc rc = backend_append(w->upload, data, len, err);
    if (!rc)
        w->size += len;
    return rc;
}

/* Returns the bytes to be stored. */
static const void *shrink(struct pack_writer *w, enum compress_codec codec, const void *pages,
                          struct memory_chunk *c)
{
    size_t len = 0;
    enum compress_codec used =
        compress_block(codec, pages, c->pages * MEMORY_PAGE, w->scratch, &len);
    c->codec = (uint16_t)used;
    c->stored = (uint32_t)len;
    return used == COMPRESS_RAW ? pages : w->scratch;
}

/* Changes are mostly zeros, which lz4 takes away where nothing shall be compressed. */
static const void *shrink_changes(struct pack_writer *w, enum compress_codec codec,
                                  const void *pages, const struct digest *whole,
                                  struct memory_chunk *c)
{
    size_t len = 0;
    enum compress_codec used =
        compress_block(codec == COMPRESS_RAW ? COMPRESS_LZ4 : codec, pages, c->pages * MEMORY_PAGE,
                       w->scratch + DIGEST_LEN, &len);
    if (used == COMPRESS_RAW)
        memcpy(w->scratch + DIGEST_LEN, pages, len);
    memcpy(w->scratch, whole->bytes, DIGEST_LEN);
    w->changes = true;
    c->codec = (uint16_t)(used | MEMORY_CHANGES);
    c->stored = (uint32_t)(DIGEST_LEN + len);
    return w->scratch;
}

enum rc pack_add(struct pack_writer *w, enum compress_codec codec, const void *pages,
                 const struct page_name *names, unsigned n, const struct digest *whole,
                 struct memory_chunk *out, struct err *err)
{
    struct memory_chunk c = {.offset = w->size, .pages = (uint16_t)n};
    const void *stored =
        whole ? shrink_changes(w, codec, pages, whole, &c) : shrink(w, codec, pages, &c);
    enum rc rc = RC_OK;
    size_t len = c.stored;
    if (!memory_chunk_is_sound(&c))
        return err_set(err, RC_INVALID, "changes of %u pages that are hardly smaller", n);
    if (w->cipher) {
        struct bound_chunk bound = bound_of(&c);
        struct cipher_message m = {w->key, c.offset, bound.bytes, sizeof(bound)};
        rc = cipher_seal(w->cipher, &m, stored, len, w->scratch, c.digest.bytes, err);
        stored = w->scratch;
    } else {
        digest_of(stored, len, &c.digest);
    }
    if (!rc)
        rc = append(w, stored, len, err);
    if (rc)
        return rc;
    buf_add(&w->entries, c.digest.bytes, DIGEST_LEN);
    put(&w->entries, c.offset, 8);
    put(&w->entries, c.stored, 4);
    put(&w->entries, c.pages, 2);
    put(&w->entries, c.codec, 2);
    buf_add(&w->names, names, n * sizeof(*names));
    w->n_chunks++;
    *out = c;
    return RC_OK;
}

/* What is bound to an encrypted index beside the pack and the offset. */
static void bind_index(uint64_t n_chunks, uint64_t n_names, uint8_t out[24])
{
    memcpy(out, "index 1", 8);
    put_at(out + 8, n_chunks, 8);
    put_at(out + 16, n_names, 8);
}

/* The index as it is stored; d: its digest, or its tag. */
static enum rc seal_index(struct pack_writer *w, struct digest *d, struct err *err)
{
    *d = (struct digest){{0}};
    if (!w->cipher) {
        digest_of(w->entries.data, w->entries.len, d);
        return RC_OK;
    }
    uint8_t bound[24];
    bind_index(w->n_chunks, w->names.len / PAGE_NAME_LEN, bound);
    struct cipher_message m = {w->key, w->size, bound, sizeof(bound)};
    return cipher_seal(w->cipher, &m, w->entries.data, w->entries.len, w->entries.data, d->bytes,
                       err);
}

static void format_footer(const struct pack_writer *w, const struct digest *d, struct buf *out)
{
    put(out, w->n_chunks, 8);
    put(out, w->names.len / PAGE_NAME_LEN, 8);
    buf_add(out, d->bytes, DIGEST_LEN);
    put(out, 1 + (w->cipher ? FORMAT_SEALED : 0) + (w->changes ? FORMAT_CHANGES : 0), 8);
    buf_add(out, magic, sizeof(magic));
}

enum rc pack_commit(struct pack_writer *w, struct err *err)
{
    CLEANUP(buf_done) struct buf footer = BUF_INIT;
    struct digest d;
    buf_add(&w->entries, w->names.data, w->names.len);
    enum rc rc = seal_index(w, &d, err);
    format_footer(w, &d, &footer);
    if (!rc)
        rc = append(w, w->entries.data, w->entries.len, err);
    if (!rc)
        rc = append(w, footer.data, footer.len, err);
    return rc ? rc : backend_commit(w->upload, err);
}

void pack_abortp(struct pack_writer **p)
{
    struct pack_writer *w = STEAL(*p);
    if (!w)
        return;
    backend_abortp(&w->upload);
    buf_done(&w->entries);
    buf_done(&w->names);
    cipher_freep(&w->cipher);
    secret_freep(&w->key);
    free(w->scratch);
    free(w);
}

/* ---- reading ---- */

static uint64_t get(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static enum rc broken(struct err *err)
{
    return err_set(err, RC_CORRUPT, "the index of a pack contradicts itself");
}

/* Chunks lie one after another from the beginning. */
static bool parse_chunk(const uint8_t *at, uint64_t offset, uint64_t end, struct memory_chunk *out)
{
    memcpy(out->digest.bytes, at, DIGEST_LEN);
    at += DIGEST_LEN;
    out->offset = get(at, 8);
    out->stored = (uint32_t)get(at + 8, 4);
    out->pages = (uint16_t)get(at + 12, 2);
    out->codec = (uint16_t)get(at + 14, 2);
    out->pack = 0;
    return out->offset == offset && memory_chunk_is_sound(out) && out->stored <= end - offset;
}

enum rc pack_index_parse(const void *data, size_t len, uint64_t n_chunks, uint64_t n_names,
                         uint64_t data_len, struct pack_index *out, struct err *err)
{
    CLEANUP(pack_index_done) struct pack_index x = {0};
    if (n_chunks > len / ENTRY || n_names > len / PAGE_NAME_LEN ||
        n_chunks * ENTRY + n_names * PAGE_NAME_LEN != len)
        return broken(err);
    x.chunks = mem_alloc(((size_t)n_chunks + 1) * sizeof(*x.chunks));
    x.names = mem_alloc(((size_t)n_names + 1) * sizeof(*x.names));
    x.n_chunks = (size_t)n_chunks;
    x.n_names = (size_t)n_names;
    uint64_t offset = 0, pages = 0;
    for (size_t i = 0; i < x.n_chunks; i++) {
        if (!parse_chunk((const uint8_t *)data + i * ENTRY, offset, data_len, &x.chunks[i]))
            return broken(err);
        offset += x.chunks[i].stored;
        pages += x.chunks[i].pages;
    }
    if (offset != data_len || pages != n_names)
        return broken(err);
    memcpy(x.names, (const uint8_t *)data + x.n_chunks * ENTRY, x.n_names * PAGE_NAME_LEN);
    *out = x;
    x = (struct pack_index){0};
    return RC_OK;
}

/* Whether the index is what was written; decrypts it in place.  footer: of the pack */
static enum rc check_index(const struct domain *d, const char *name, const uint8_t *footer,
                           uint64_t offset, uint8_t *data, size_t len, struct err *err)
{
    const uint8_t *proof = footer + 16;
    struct digest digest;
    if (!d) {
        digest_of(data, len, &digest);
        return memcmp(digest.bytes, proof, DIGEST_LEN) == 0
                   ? RC_OK
                   : err_set(err, RC_CORRUPT, "the index of a pack is damaged");
    }
    CLEANUP(cipher_freep) struct cipher *c = NULL;
    CLEANUP(secret_freep) uint8_t *key = secret_alloc(CIPHER_KEY);
    uint8_t bound[24];
    if (get(proof + CIPHER_TAG, 8) | get(proof + CIPHER_TAG + 8, 8))
        return broken(err);
    bind_index(get(footer, 8), get(footer + 8, 8), bound);
    struct cipher_message m = {key, offset, bound, sizeof(bound)};
    enum rc rc = domain_pack_key(d, name, key, err);
    if (!rc)
        rc = cipher_new(&c, err);
    if (!rc)
        rc = cipher_open(c, &m, data, len, proof, data, NULL);
    return rc == RC_CORRUPT ? err_set(err, RC_DENIED,
                                      "the index of a pack is damaged, or encrypted "
                                      "with another key")
                            : rc;
}

static enum rc read_index(struct backend_object *o, const struct domain *d, const char *name,
                          struct pack_index *out, struct err *err)
{
    uint8_t footer[FOOTER];
    if (o->size < FOOTER)
        return err_set(err, RC_CORRUPT, "it is too short for a pack");
    enum rc rc = backend_read(o, o->size - FOOTER, footer, FOOTER, err);
    if (rc)
        return rc;
    uint64_t format = get(footer + 48, 8);
    if (memcmp(footer + FOOTER - sizeof(magic), magic, sizeof(magic)) != 0)
        return err_set(err, RC_CORRUPT, "it is no pack");
    if (format < 1 || format > FORMAT_MAX)
        return err_set(err, RC_UNSUPPORTED, "it is a pack of a newer chrek");
    if ((((format - 1) & FORMAT_SEALED) != 0) != (d != NULL))
        return err_set(err, RC_DENIED, d ? "it is not encrypted" : "it is encrypted");
    uint64_t n_chunks = get(footer, 8), n_names = get(footer + 8, 8);
    if (n_chunks > INDEX_MAX / ENTRY || n_names > INDEX_MAX / PAGE_NAME_LEN)
        return broken(err);
    uint64_t len = n_chunks * ENTRY + n_names * PAGE_NAME_LEN;
    if (len > o->size - FOOTER)
        return broken(err);
    uint64_t offset = o->size - FOOTER - len;
    CLEANUP(mem_freep) uint8_t *data = mem_alloc((size_t)len + 1);
    rc = backend_read(o, offset, data, (size_t)len, err);
    if (!rc)
        rc = check_index(d, name, footer, offset, data, (size_t)len, err);
    return rc ? rc : pack_index_parse(data, (size_t)len, n_chunks, n_names, offset, out, err);
}

enum rc pack_read_index(struct backend *b, const struct domain *d, const char *name,
                        struct pack_index *out, uint64_t *out_size, struct err *err)
{
    char key[PACK_KEY_LEN];
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    pack_key(name, key);
    enum rc rc = backend_open(b, key, &o, err);
    if (rc)
        return rc;
    rc = read_index(o, d, name, out, err);
    if (rc)
        return err_ctx(err, rc, "pack '%s'", name);
    *out_size = o->size;
    return RC_OK;
}

void pack_index_done(struct pack_index *x)
{
    free(x->chunks);
    free(x->names);
    *x = (struct pack_index){0};
}

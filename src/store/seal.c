#include "store/seal.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/rand.h"
#include "base/sys.h"
#include "codec/secret.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMAT 1
#define SALT 24

static const char magic[8] = {'c', 'h', 'r', 'e', 'k', 'e', 'n', 'c'};

static void put(uint8_t *at, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

/* What working on one file takes. */
struct work {
    struct cipher *cipher;
    uint8_t *key;
    struct buf bound;  /* header, id, name */
    uint8_t *segment;  /* SEAL_SEGMENT + CIPHER_TAG bytes */
    uint64_t size;     /* of the file in the clear */
    uint64_t segments; /* at least 1, so that an empty file is vouched for, too */
};

static void work_done(struct work *w)
{
    cipher_freep(&w->cipher);
    secret_freep(&w->key);
    buf_done(&w->bound);
    if (w->segment)
        secret_wipe(w->segment, SEAL_SEGMENT + CIPHER_TAG);
    mem_freep(&w->segment);
}

static enum rc begin(const struct domain *d, const struct seal_label *l,
                     const uint8_t header[SEAL_HEADER], struct work *w, struct err *err)
{
    w->size = get(header + 56, 8);
    w->segments = w->size / SEAL_SEGMENT + (w->size % SEAL_SEGMENT != 0 || w->size == 0);
    w->key = secret_alloc(CIPHER_KEY);
    w->segment = mem_alloc(SEAL_SEGMENT + CIPHER_TAG);
    buf_add(&w->bound, header, SEAL_HEADER);
    buf_add(&w->bound, l->id, strlen(l->id) + 1);
    buf_add(&w->bound, l->name, strlen(l->name) + 1);
    enum rc rc = domain_file_key(d, header + 32, SALT, w->key, err);
    return rc ? rc : cipher_new(&w->cipher, err);
}

static size_t segment_len(const struct work *w, uint64_t i)
{
    return i + 1 < w->segments ? SEAL_SEGMENT : (size_t)(w->size - i * SEAL_SEGMENT);
}

enum rc seal_write(const struct domain *d, const struct seal_label *l, int from, int to,
                   struct err *err)
{
    CLEANUP(work_done) struct work w = {.cipher = NULL};
    uint8_t header[SEAL_HEADER] = {0};
    struct stat st;
    if (fstat(from, &st) < 0 || lseek(from, 0, SEEK_SET) < 0)
        return err_sys(err, "encrypt '%s'", l->name);
    memcpy(header, magic, sizeof(magic));
    put(header + 8, FORMAT, 4);
    put(header + 12, SEAL_SEGMENT, 4);
    memcpy(header + 16, l->instance, SEAL_INSTANCE);
    rand_bytes(header + 32, SALT);
    put(header + 56, (uint64_t)st.st_size, 8);
    enum rc rc = begin(d, l, header, &w, err);
    if (!rc)
        rc = sys_write_all(to, header, SEAL_HEADER, err);
    for (uint64_t i = 0; !rc && i < w.segments; i++) {
        size_t len = segment_len(&w, i), got = 0;
        struct cipher_message m = {w.key, i, w.bound.data, w.bound.len};
        rc = sys_read_full(from, w.segment, len, &got, err);
        if (!rc && got != len)
            rc = err_set(err, RC_CONFLICT, "it has become shorter");
        if (!rc)
            rc = cipher_seal(w.cipher, &m, w.segment, len, w.segment, w.segment + len, err);
        if (!rc)
            rc = sys_write_all(to, w.segment, len + CIPHER_TAG, err);
    }
    return rc ? err_ctx(err, rc, "encrypt '%s'", l->name) : RC_OK;
}

/* The header, and whether the file is as long as it says. */
static enum rc read_header(const struct seal_label *l, int from, uint8_t header[SEAL_HEADER],
                           struct err *err)
{
    struct stat st;
    size_t got = 0;
    if (fstat(from, &st) < 0 || lseek(from, 0, SEEK_SET) < 0)
        return err_sys(err, "read");
    enum rc rc = sys_read_full(from, header, SEAL_HEADER, &got, err);
    if (rc)
        return rc;
    if (got != SEAL_HEADER || memcmp(header, magic, sizeof(magic)) != 0)
        return err_set(err, RC_CORRUPT, "it is not encrypted as it should be");
    if (get(header + 8, 4) > FORMAT)
        return err_set(err, RC_UNSUPPORTED, "it was encrypted by a newer chrek");
    uint64_t size = get(header + 56, 8), whole = (uint64_t)st.st_size;
    uint64_t segments = size / SEAL_SEGMENT + (size % SEAL_SEGMENT != 0 || size == 0);
    if (get(header + 8, 4) != FORMAT || get(header + 12, 4) != SEAL_SEGMENT || size > whole ||
        whole != SEAL_HEADER + size + segments * CIPHER_TAG)
        return err_set(err, RC_CORRUPT, "it is damaged");
    if (memcmp(header + 16, l->instance, SEAL_INSTANCE) != 0)
        return err_set(err, RC_CONFLICT, "it belongs to another making of this checkpoint");
    return RC_OK;
}

static enum rc read_segments(struct work *w, int from, int to, struct buf *out, struct err *err)
{
    for (uint64_t i = 0; i < w->segments; i++) {
        size_t len = segment_len(w, i), got = 0;
        struct cipher_message m = {w->key, i, w->bound.data, w->bound.len};
        enum rc rc = sys_read_full(from, w->segment, len + CIPHER_TAG, &got, err);
        if (!rc && got != len + CIPHER_TAG)
            rc = err_set(err, RC_CORRUPT, "it is damaged");
        if (!rc && cipher_open(w->cipher, &m, w->segment, len, w->segment + len, w->segment, err) ==
                       RC_CORRUPT)
            rc = err_set(err, RC_CORRUPT, "it is damaged");
        if (!rc && out)
            buf_add(out, w->segment, len);
        else if (!rc)
            rc = sys_write_all(to, w->segment, len, err);
        if (rc)
            return rc;
    }
    return RC_OK;
}

static enum rc read_file(const struct domain *d, const struct seal_label *l, int from, int to,
                         struct buf *out, struct err *err)
{
    CLEANUP(work_done) struct work w = {.cipher = NULL};
    uint8_t header[SEAL_HEADER] = {0};
    enum rc rc = read_header(l, from, header, err);
    if (!rc)
        rc = begin(d, l, header, &w, err);
    if (!rc && out && w.size > buf_max(out))
        rc = err_set(err, RC_TOO_BIG, "it has more than %zu bytes", buf_max(out));
    if (!rc)
        rc = read_segments(&w, from, to, out, err);
    return rc ? err_ctx(err, rc, "decrypt '%s'", l->name) : RC_OK;
}

enum rc seal_read(const struct domain *d, const struct seal_label *l, int from, int to,
                  struct err *err)
{
    return read_file(d, l, from, to, NULL, err);
}

enum rc seal_read_bytes(const struct domain *d, const struct seal_label *l, int from,
                        struct buf *out, struct err *err)
{
    size_t before = out->len;
    enum rc rc = read_file(d, l, from, -1, out, err);
    if (rc)
        buf_cut(out, before);
    return rc;
}

#include "unit/store/samples.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "harness/test.h"
#include "store/page_reader.h"

#include <stdlib.h>
#include <string.h>

void sample_page(uint64_t number, void *out)
{
    uint64_t words[MEMORY_PAGE / 8], x = number * 0x9e3779b97f4a7c15ULL;
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        words[i] = i % 2 ? number : x;
    }
    if (number == 0)
        memset(words, 0, sizeof(words));
    memcpy(out, words, sizeof(words));
}

enum rc sample_give(struct page_writer *w, uint32_t id, const uint64_t *numbers, uint64_t n,
                    struct err *err)
{
    struct page_input *in = NULL;
    enum rc rc = page_writer_input(w, id, n, &in, err);
    for (uint64_t at = 0; !rc && at < n;) {
        unsigned part = n - at < MEMORY_CHUNK_PAGES ? (unsigned)(n - at) : MEMORY_CHUNK_PAGES;
        struct page_block *b = page_writer_take(w, err);
        if (!b)
            return err->rc;
        for (unsigned i = 0; i < part; i++)
            sample_page(numbers[at + i], (char *)page_block_data(b) + i * MEMORY_PAGE);
        page_writer_give(w, b, in, at, part);
        at += part;
    }
    return rc;
}

enum rc sample_file(struct page_writer *w, uint32_t id, int fd, struct err *err)
{
    struct page_input *in = NULL;
    enum rc rc = page_writer_file(w, id, fd, &in, err);
    return rc ? rc : page_writer_read(w, in, fd, err);
}

enum rc sample_write(struct backend *b, uint32_t id, const uint64_t *numbers, uint64_t n,
                     struct memory *out, struct page_writer_totals *totals, struct err *err)
{
    struct page_writer_options o = {.backend = b, .codec = COMPRESS_LZ4, .threads = 2};
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    enum rc rc = page_writer_open(&o, &w, err);
    if (!rc)
        rc = sample_give(w, id, numbers, n, err);
    return rc ? rc : page_writer_finish(w, out, totals, err);
}

enum rc sample_check(struct backend *b, const struct memory *m, uint32_t id,
                     const uint64_t *numbers, uint64_t n, struct err *err)
{
    CLEANUP(page_reader_freep) struct page_reader *r = NULL;
    CLEANUP(mem_freep) char *got = mem_alloc((n + 1) * MEMORY_PAGE);
    enum rc rc = page_reader_open(b, NULL, m, &r, err);
    if (!rc)
        rc = page_reader_pages(r, id, 0, n, got, err);
    for (uint64_t i = 0; !rc && i < n; i++) {
        char want[MEMORY_PAGE];
        sample_page(numbers[i], want);
        if (memcmp(got + i * MEMORY_PAGE, want, MEMORY_PAGE) != 0)
            rc = err_set(err, RC_CONFLICT, "page %ju is another one", (uintmax_t)i);
    }
    return rc;
}

struct keys {
    char **list;
    size_t n;
};

static enum rc add_key(void *arg, const char *key, uint64_t size, struct err *err)
{
    struct keys *k = arg;
    (void)size;
    if (k->n == 64)
        return err_set(err, RC_TOO_BIG, "too many objects");
    k->list[k->n++] = mem_strdup(key);
    return RC_OK;
}

size_t sample_keys(struct backend *b, const char *prefix, char *out[64])
{
    struct err err = ERR_INIT;
    struct keys k = {.list = out};
    CHECK_OK(backend_list(b, prefix, add_key, &k, &err));
    return k.n;
}

void sample_replace(struct backend *b, const char *key, const void *data, size_t len)
{
    struct err err = ERR_INIT;
    CHECK_OK(backend_remove(b, key, &err));
    CHECK_OK(backend_put(b, key, data, len, &err));
}

char *sample_read(struct backend *b, const char *key, size_t *out_len)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    CHECK_OK(backend_open(b, key, &o, &err));
    char *data = mem_zalloc(o->size + 1);
    CHECK_OK(backend_read(o, 0, data, o->size, &err));
    *out_len = o->size;
    return data;
}

#include "unit/store/checkpoints.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "store/page_writer.h"
#include "unit/store/samples.h"

#include <stdlib.h>
#include <string.h>

struct store *checkpoints_open(void)
{
    struct err err = ERR_INIT;
    struct store *s = NULL;
    CHECK_OK(store_open(test_dir(), &s, &err));
    return s;
}

struct store *checkpoints_open_in(const char *folder)
{
    struct err err = ERR_INIT;
    struct store *s = NULL;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/%s", test_dir(), folder);
    CHECK_OK(store_open(path, &s, &err));
    return s;
}

static uint64_t *numbers_of(uint64_t first, unsigned n)
{
    uint64_t *numbers = mem_zalloc(3 * (size_t)n * sizeof(*numbers));
    for (unsigned i = 0; i < n; i++)
        numbers[3 * (size_t)i] = numbers[3 * (size_t)i + 1] = first + i;
    return numbers;
}

static enum rc write_files(struct store *s, struct store_staging *g, const struct memory *m,
                           struct err *err)
{
    static const char image[] = "an image";
    CLEANUP(buf_done) struct buf text = {.max = MEMORY_MAX};
    (void)s;
    memory_format(m, &text);
    enum rc rc = fs_write_atomic(store_staging_fd(g), MEMORY_NAME, text.data, text.len, 0600, err);
    return rc ? rc
              : fs_write_whole(store_staging_fd(g), "core-1.img", image, sizeof(image), 0600, err);
}

enum rc checkpoint_make(struct store *s, const char *id, uint64_t first, unsigned n,
                        struct err *err)
{
    CLEANUP(store_abortp) struct store_staging *g = NULL;
    CLEANUP(store_hold_freep) struct store_hold *hold = NULL;
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(metadata_done) struct metadata meta = {.ours = true, .root_pid = 1, .packed = true};
    CLEANUP(mem_freep) uint64_t *numbers = numbers_of(first, n);
    struct page_writer_totals t;
    char now[CLOCK_RFC3339_LEN];
    clock_rfc3339(now);
    meta.created_at = mem_strdup(now);
    meta.name = mem_asprintf("box-%s", id);
    enum rc rc = store_begin(s, id, false, &g, err);
    if (!rc)
        rc = store_hold_packs(s, false, &hold, err);
    if (!rc)
        rc = sample_write(store_backend(s), 1, numbers, 3 * (uint64_t)n, &m, &t, err);
    if (rc)
        return rc;
    meta.pages_bytes = t.pages * MEMORY_PAGE;
    meta.packed_bytes = t.written;
    rc = write_files(s, g, &m, err);
    return rc ? rc : store_commit(g, &meta, true, err);
}

enum rc checkpoint_check(struct store *s, const char *id, uint64_t first, unsigned n,
                         struct err *err)
{
    const struct page_reader *pages = NULL;
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CLEANUP(mem_freep) uint64_t *numbers = numbers_of(first, n);
    enum rc rc = store_find(s, id, &e, err);
    if (!rc)
        rc = store_verify(e, STORE_ALL, 1, NULL, err);
    if (!rc)
        rc = store_entry_pages(e, &pages, err);
    return rc ? rc
              : sample_check(store_backend(s), page_reader_memory(pages), 1, numbers,
                             3 * (uint64_t)n, err);
}

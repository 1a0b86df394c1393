/* Packs of a domain: encrypted, bound to their place, and nobody else's. */
#include "backend/drivers.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/rand.h"
#include "base/sys.h"
#include "harness/test.h"
#include "store/pack.h"
#include "store/page_scan.h"
#include "store/page_writer.h"
#include "unit/store/samples.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 100U

static struct domain *domain_of(char c)
{
    struct err err = ERR_INIT;
    struct domain *d = NULL;
    struct key_id id;
    uint8_t key[CIPHER_KEY];
    memset(key, c, sizeof(key));
    CHECK_OK(keyfile_data_id(key, &id, &err));
    CHECK_OK(domain_new(&id, key, &d, &err));
    return d;
}

static struct backend *open_backend(void)
{
    struct err err = ERR_INIT;
    struct backend *b = NULL;
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CHECK_OK(backend_local_open(dir, &b, &err));
    return b;
}

/* Pages of which some compress, some do not, some are zero and some are equal. */
static uint8_t *make_pages(void)
{
    uint8_t *p = mem_zalloc(PAGES * MEMORY_PAGE);
    rand_bytes(p, PAGES * MEMORY_PAGE / 2);
    for (size_t i = PAGES / 2; i < PAGES; i++)
        if (i % 4)
            memset(p + i * MEMORY_PAGE, (int)(i / 2), MEMORY_PAGE);
    return p;
}

static void store_pages(struct backend *b, const struct domain *d, const uint8_t *pages,
                        struct memory *out, struct page_writer_totals *t)
{
    struct err err = ERR_INIT;
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {.backend = b, .domain = d, .codec = COMPRESS_LZ4, .threads = 1};
    CLEANUP(fd_closep) int fd = memfd_create("pages", MFD_CLOEXEC);
    CHECK(pwrite(fd, pages, PAGES * MEMORY_PAGE, 0) == (ssize_t)(PAGES * MEMORY_PAGE));
    CHECK_OK(page_writer_open(&o, &w, &err));
    CHECK_OK(sample_file(w, 1, fd, &err));
    CHECK_OK(page_writer_finish(w, out, t, &err));
}

static enum rc read_pages(struct backend *b, const struct domain *d, const struct memory *m,
                          uint8_t *out, struct err *err)
{
    CLEANUP(page_reader_freep) struct page_reader *r = NULL;
    enum rc rc = page_reader_open(b, d, m, &r, err);
    if (!rc)
        rc = page_scan_verify(r, NULL, err);
    return rc ? rc : page_reader_pages(r, 1, 0, PAGES, out, err);
}

static char *pack_path(const struct memory *m, size_t i)
{
    char key[PACK_KEY_LEN];
    pack_key(m->packs[i].name, key);
    return mem_asprintf("%s/%s", test_dir(), key);
}

TEST(pages_come_back_through_the_map_as_it_is_stored)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_backend();
    CLEANUP(domain_freep) struct domain *d = domain_of('a');
    CLEANUP(mem_freep) uint8_t *pages = make_pages();
    CLEANUP(mem_freep) uint8_t *back = mem_zalloc(PAGES * MEMORY_PAGE);
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(memory_done) struct memory parsed = {0};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    struct page_writer_totals t;
    store_pages(b, d, pages, &m, &t);
    memory_format(&m, &text);
    CHECK_OK(memory_parse(text.data, text.len, &parsed, &err));
    CHECK(parsed.sealed && text.data[8] == 6);
    CHECK_OK(read_pages(b, d, &parsed, back, &err));
    CHECK(memcmp(pages, back, PAGES * MEMORY_PAGE) == 0);
}

TEST(nothing_of_the_pages_is_to_be_seen_in_a_pack)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_backend();
    CLEANUP(domain_freep) struct domain *d = domain_of('a');
    CLEANUP(mem_freep) uint8_t *pages = make_pages();
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    struct page_writer_totals t;
    struct page_name keyed, plain;
    store_pages(b, d, pages, &m, &t);
    CLEANUP(mem_freep) char *path = pack_path(&m, 0);
    CHECK_OK(fs_read_file(AT_FDCWD, path, 1 << 20, &text, &err));
    for (size_t i = 0; i < PAGES; i++) {
        page_name(d, pages + i * MEMORY_PAGE, &keyed);
        page_name(NULL, pages + i * MEMORY_PAGE, &plain);
        CHECK(memcmp(&keyed, &plain, sizeof(plain)) != 0);
        CHECK(!memmem(text.data, text.len, &keyed, sizeof(keyed)));
        CHECK(!memmem(text.data, text.len, &plain, sizeof(plain)));
        CHECK(i % 4 == 0 || !memmem(text.data, text.len, pages + i * MEMORY_PAGE, 16));
    }
}

TEST(a_domain_shares_with_itself_only)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_backend();
    CLEANUP(domain_freep) struct domain *a = domain_of('a');
    CLEANUP(domain_freep) struct domain *z = domain_of('z');
    const struct domain *in_turn[] = {a, a, z, z, NULL, NULL, a};
    CLEANUP(mem_freep) uint8_t *pages = make_pages();
    CLEANUP(mem_freep) uint8_t *back = mem_zalloc(PAGES * MEMORY_PAGE);
    for (size_t i = 0; i < ARRAY_LEN(in_turn); i++) {
        CLEANUP(memory_done) struct memory m = {0};
        struct page_writer_totals t;
        store_pages(b, in_turn[i], pages, &m, &t);
        bool first = i % 2 == 0 && i < 6;
        CHECK((t.written == 0) == !first);
        CHECK_OK(read_pages(b, in_turn[i], &m, back, &err));
        CHECK(memcmp(pages, back, PAGES * MEMORY_PAGE) == 0);
    }
}

TEST(without_the_key_or_with_another_nothing_is_read)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_backend();
    CLEANUP(domain_freep) struct domain *a = domain_of('a');
    CLEANUP(domain_freep) struct domain *z = domain_of('z');
    CLEANUP(mem_freep) uint8_t *pages = make_pages();
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(pack_index_done) struct pack_index x = {0};
    struct page_writer_totals t;
    uint64_t size = 0;
    store_pages(b, a, pages, &m, &t);
    CHECK_RC(read_pages(b, NULL, &m, pages, &err), RC_DENIED);
    CHECK(strstr(err.msg, "no key"));
    CHECK_RC(read_pages(b, z, &m, pages, &err), RC_CORRUPT);
    CHECK_RC(pack_read_index(b, z, m.packs[0].name, &x, &size, &err), RC_DENIED);
    CHECK_RC(pack_read_index(b, NULL, m.packs[0].name, &x, &size, &err), RC_DENIED);
    CHECK_OK(pack_read_index(b, a, m.packs[0].name, &x, &size, &err));
    CHECK(x.n_chunks == m.n_chunks && size == m.packs[0].size);
}

TEST(a_child_of_a_fork_has_no_keys_rather_than_zeros)
{
    CLEANUP(domain_freep) struct domain *d = domain_of('a');
    uint8_t key[CIPHER_KEY];
    struct err err = ERR_INIT;
    CHECK_OK(domain_pack_key(d, "x", key, &err));
    pid_t pid = fork();
    if (pid == 0)
        _exit(domain_pack_key(d, "x", key, NULL) == RC_IO &&
                      domain_file_key(d, "x", 1, key, NULL) == RC_IO
                  ? 0
                  : 1);
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

/* Each byte of a small pack is changed: reading says so, or it was of the index, and then a capture
 * does not refer to the pack. */
TEST(whatever_byte_of_a_pack_is_changed_no_wrong_page_comes_of_it)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_backend();
    CLEANUP(domain_freep) struct domain *d = domain_of('a');
    CLEANUP(mem_freep) uint8_t *pages = mem_zalloc(PAGES * MEMORY_PAGE);
    CLEANUP(mem_freep) uint8_t *back = mem_zalloc(PAGES * MEMORY_PAGE);
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    struct page_writer_totals t;
    memset(pages, 'p', 2 * MEMORY_PAGE);
    memset(pages + MEMORY_PAGE, 'q', MEMORY_PAGE);
    store_pages(b, d, pages, &m, &t);
    CLEANUP(mem_freep) char *path = pack_path(&m, 0);
    CHECK_OK(fs_read_file(AT_FDCWD, path, 1 << 20, &text, &err));
    CHECK_INT(m.n_chunks, 1);
    for (size_t i = 0; i < text.len; i++) {
        CLEANUP(pack_index_done) struct pack_index x = {0};
        uint64_t size = 0;
        text.data[i] ^= 0x41;
        CHECK_OK(fs_write_whole(AT_FDCWD, path, text.data, text.len, 0600, &err));
        bool in_chunk = i < m.chunks[0].stored;
        CHECK_RC(read_pages(b, d, &m, back, &err), in_chunk ? RC_CORRUPT : RC_OK);
        enum rc rc = pack_read_index(b, d, m.packs[0].name, &x, &size, NULL);
        CHECK(in_chunk == (rc == RC_OK));
        text.data[i] ^= 0x41;
    }
}

/* Chunks of equal length: pages that do not compress. */
TEST(chunks_cannot_stand_in_for_one_another)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_backend();
    CLEANUP(domain_freep) struct domain *d = domain_of('a');
    CLEANUP(pack_abortp) struct pack_writer *one = NULL;
    CLEANUP(pack_abortp) struct pack_writer *two = NULL;
    CLEANUP(cipher_freep) struct cipher *c = NULL;
    uint8_t page[3][MEMORY_PAGE], stored[3][MEMORY_PAGE], key[2][CIPHER_KEY];
    struct memory_chunk chunk[3];
    struct page_name name;
    CHECK_OK(pack_begin(b, d, &one, &err));
    CHECK_OK(pack_begin(b, d, &two, &err));
    for (size_t i = 0; i < 3; i++) {
        rand_bytes(page[i], MEMORY_PAGE);
        page_name(d, page[i], &name);
        CHECK_OK(
            pack_add(i < 2 ? one : two, COMPRESS_LZ4, page[i], &name, 1, NULL, &chunk[i], &err));
        CHECK(chunk[i].codec == COMPRESS_RAW && chunk[i].stored == MEMORY_PAGE);
    }
    CHECK_OK(pack_commit(one, &err));
    CHECK_OK(pack_commit(two, &err));
    CHECK_OK(domain_pack_key(d, pack_name(one), key[0], &err));
    CHECK_OK(domain_pack_key(d, pack_name(two), key[1], &err));
    for (size_t i = 0; i < 3; i++) {
        char path[PACK_KEY_LEN];
        CLEANUP(backend_closep) struct backend_object *o = NULL;
        pack_key(pack_name(i < 2 ? one : two), path);
        CHECK_OK(backend_open(b, path, &o, &err));
        CHECK_OK(backend_read(o, chunk[i].offset, stored[i], MEMORY_PAGE, &err));
    }
    CHECK_OK(cipher_new(&c, &err));
    for (size_t place = 0; place < 3; place++)
        for (size_t from = 0; from < 3; from++)
            for (size_t tag = 0; tag < 3; tag++) {
                uint8_t data[MEMORY_PAGE];
                struct memory_chunk claim = chunk[place];
                claim.digest = chunk[tag].digest;
                memcpy(data, stored[from], MEMORY_PAGE);
                enum rc rc = pack_open_chunk(c, key[place / 2], &claim, data, &err);
                CHECK((rc == RC_OK) == (place == from && from == tag));
                CHECK(rc || memcmp(data, page[place], MEMORY_PAGE) == 0);
            }
    struct memory_chunk claim = chunk[0];
    claim.codec = COMPRESS_LZ4;
    CHECK_RC(pack_open_chunk(c, key[0], &claim, stored[0], &err), RC_CORRUPT);
}

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "store/copy.h"
#include "store/pack.h"
#include "unit/store/samples.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define PAGES 300U

static struct store *open_store(const char *scheme, const char *name)
{
    struct err err = ERR_INIT;
    struct store *s = NULL;
    CLEANUP(mem_freep) char *url = mem_asprintf("%s%s/%s", scheme, test_dir(), name);
    struct store_options o = {.tmp = test_dir()};
    CHECK_OK(store_open_with(url, &o, &s, &err));
    return s;
}

/* A checkpoint whose memory is of its own, but for the first half, which all have. */
static void make(struct store *s, const char *id, uint64_t seed)
{
    struct err err = ERR_INIT;
    CLEANUP(store_hold_freep) struct store_hold *hold = NULL;
    CLEANUP(store_abortp) struct store_staging *g = NULL;
    CLEANUP(memory_done) struct memory map = {0};
    CLEANUP(metadata_done) struct metadata m = {.ours = true, .root_pid = 301, .packed = true};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    struct page_writer_totals totals;
    uint64_t numbers[PAGES];
    for (uint64_t i = 0; i < PAGES; i++)
        numbers[i] = i + 1 + (i < PAGES / 2 ? 0 : seed * 1000000);
    CHECK_OK(store_begin(s, id, false, &g, &err));
    CHECK_OK(store_hold_packs(s, false, &hold, &err));
    CHECK_OK(sample_write(store_backend(s), 1, numbers, PAGES, &map, &totals, &err));
    memory_format(&map, &text);
    CHECK_OK(fs_write_whole(store_staging_fd(g), MEMORY_NAME, text.data, text.len, 0600, &err));
    CHECK_OK(fs_write_whole(store_staging_fd(g), "core-1.img", id, strlen(id), 0600, &err));
    CHECK_OK(fs_write_whole(store_staging_fd(g), "dump.log", "log", 3, 0600, &err));
    CHECK_OK(store_commit(g, &m, true, &err));
}

static bool is_whole(struct store *s, const char *id)
{
    struct err err = ERR_INIT;
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    enum rc rc = store_find(s, id, &e, &err);
    if (rc == RC_NOT_FOUND)
        return false;
    CHECK_OK(rc);
    CHECK_OK(store_verify(e, STORE_ALL, 2, NULL, &err));
    CHECK(faccessat(store_entry_fd(e), "dump.log", F_OK, 0) == 0);
    return true;
}

static void check_copies(const char *from_scheme, const char *to_scheme)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *a = open_store(from_scheme, "a");
    CLEANUP(store_freep) struct store *b = open_store(to_scheme, "b");
    struct store_copied n = {0};
    uint64_t done = 0;
    make(a, "one", 7);
    make(a, "two", 9);
    CHECK_OK(store_copy(a, "one", b, false, 3, &done, &n, &err));
    CHECK(!n.there && n.packs > 0 && n.packs_there == 0 && done == n.bytes);
    CHECK(is_whole(b, "one"));
    uint64_t first = n.bytes;
    CHECK_OK(store_copy(a, "two", b, false, 3, NULL, &n, &err));
    CHECK(n.packs_there > 0 && n.bytes < first * 3 / 4);
    CHECK(is_whole(b, "two"));
    CHECK_OK(store_copy(a, "one", b, false, 3, NULL, &n, &err));
    CHECK(n.there && n.packs == 0);
    CHECK_RC(store_copy(a, "three", b, false, 3, NULL, &n, &err), RC_NOT_FOUND);
}

TEST(copies_send_what_is_missing_from_directory_to_directory)
{
    check_copies("", "");
}

TEST(copies_send_what_is_missing_from_directory_to_objects)
{
    check_copies("", "object://");
}

TEST(copies_send_what_is_missing_from_objects_to_directory)
{
    check_copies("object://", "");
}

TEST(another_of_the_same_id_stays_unless_it_shall_be_replaced)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *a = open_store("", "a");
    CLEANUP(store_freep) struct store *b = open_store("object://", "b");
    struct store_copied n = {0};
    make(a, "one", 7);
    make(b, "one", 9);
    CHECK_RC(store_copy(a, "one", b, false, 1, NULL, &n, &err), RC_EXISTS);
    CHECK_OK(store_copy(a, "one", b, true, 1, NULL, &n, &err));
    CHECK(!n.there && is_whole(b, "one"));
    CHECK_OK(store_copy(a, "one", b, false, 1, NULL, &n, &err));
    CHECK(n.there);
}

TEST(a_failure_anywhere_publishes_nothing_and_the_next_goes_on)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *a = open_store("", "a");
    CLEANUP(store_freep) struct store *b = open_store("", "b");
    make(a, "one", 7);
    for (unsigned i = 0;; i += 3) {
        struct store_copied n = {0};
        int fds = test_open_fds();
        fault_arm(i, FAULT_FAIL);
        enum rc rc = store_copy(a, "one", b, false, 1, NULL, &n, &err);
        bool hit = fault_passed() > i;
        fault_disarm();
        CHECK(rc == RC_OK || hit);
        CHECK(test_open_fds() == fds);
        if (is_whole(b, "one"))
            CHECK_OK(store_delete(b, "one", &err));
        else
            CHECK(rc != RC_OK);
        if (!hit)
            break;
    }
    struct store_copied n = {0};
    CHECK_OK(store_copy(a, "one", b, false, 1, NULL, &n, &err));
    CHECK(n.packs == 0 && n.packs_there > 0); /* from the attempts */
    CHECK(is_whole(b, "one"));
}

TEST(damage_is_found_on_the_way)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *a = open_store("", "a");
    CLEANUP(store_freep) struct store *b = open_store("", "b");
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CLEANUP(buf_done) struct buf bytes = BUF_INIT;
    const struct page_reader *pages = NULL;
    struct store_copied n = {0};
    char key[PACK_KEY_LEN];
    make(a, "one", 7);
    CHECK_OK(store_find(a, "one", &e, &err));
    CHECK_OK(store_entry_pages(e, &pages, &err));
    pack_key(page_reader_memory(pages)->packs[0].name, key);
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/a/%s", test_dir(), key);
    CHECK_OK(fs_read_file(AT_FDCWD, path, 1 << 26, &bytes, &err));
    bytes.data[5000] ^= 1;
    CHECK_OK(fs_write_whole(AT_FDCWD, path, bytes.data, bytes.len, 0600, &err));
    CHECK_RC(store_copy(a, "one", b, false, 2, NULL, &n, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "memory is damaged") && !is_whole(b, "one"));
}

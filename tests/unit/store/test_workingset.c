#include "backend/drivers.h"
#include "base/buf.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "store/page_writer.h"
#include "store/workingset.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 300U
#define KEY "workingset/c"

/* Packed pages, each of which says its number. */
struct packed {
    struct backend *backend;
    struct memory memory;
    struct page_reader *reader;
    struct digest digest;
    int base;
    struct workingset_place place;
};

static void fill_page(uint8_t *page, uint64_t number)
{
    for (size_t i = 0; i < MEMORY_PAGE / 8; i++) {
        uint64_t word = number * 1000003 + i % 13;
        memcpy(page + 8 * i, &word, 8);
    }
}

static void pack(struct packed *p)
{
    struct err err = ERR_INIT;
    struct page_writer *w = NULL;
    struct page_input *in = NULL;
    struct page_writer_totals totals;
    *p = (struct packed){.base = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0)};
    CHECK_OK(backend_mem_open(&p->backend, &err));
    struct page_writer_options o = {
        .backend = p->backend, .codec = COMPRESS_LZ4, .threads = 1, .buffer_bytes = 1 << 20};
    CHECK_OK(page_writer_open(&o, &w, &err));
    CHECK_OK(page_writer_input(w, 1, PAGES, &in, &err));
    for (unsigned at = 0; at < PAGES; at += MEMORY_CHUNK_PAGES) {
        unsigned n = PAGES - at < MEMORY_CHUNK_PAGES ? PAGES - at : MEMORY_CHUNK_PAGES;
        struct page_block *b = page_writer_take(w, &err);
        for (unsigned i = 0; i < n; i++)
            fill_page((uint8_t *)page_block_data(b) + i * MEMORY_PAGE, at + i);
        page_writer_give(w, b, in, at, n);
    }
    CHECK_OK(page_writer_finish(w, &p->memory, &totals, &err));
    page_writer_freep(&w);
    CHECK_OK(page_reader_open(p->backend, NULL, &p->memory, &p->reader, &err));
    digest_of("map", 3, &p->digest);
    p->place = (struct workingset_place){.base = p->base, .name = (char *)(uintptr_t) "c"};
}

/* The same with its record in object storage. */
static void pack_in_objects(struct packed *p)
{
    pack(p);
    p->place.name = (char *)(uintptr_t)KEY;
    p->place.backend = p->backend;
}

static void drop(struct packed *p)
{
    page_reader_freep(&p->reader);
    memory_done(&p->memory);
    backend_freep(&p->backend);
    fd_closep(&p->base);
}

static const struct workingset_extent some[] = {{1, 3, 250}, {1, 90, 10}, {1, 1, 299}};

static enum rc write_some(const struct packed *p, struct err *err)
{
    return workingset_write(&p->place, &p->digest, some, ARRAY_LEN(some), p->reader, err);
}

static enum rc open_it(const struct packed *p, struct workingset *w, struct err *err)
{
    return workingset_open(&p->place, &p->digest, w, err);
}

/* Every byte of it. */
static enum rc read_all(const struct workingset *w, struct err *err)
{
    CLEANUP(mem_freep) uint8_t *buffers = mem_alloc(2 * MEMORY_CHUNK);
    uint8_t *out = buffers + MEMORY_CHUNK, want[MEMORY_PAGE];
    size_t extent = 0, in_extent = 0;
    for (size_t i = 0; i < w->n_chunks; i++) {
        enum rc rc = workingset_chunk(w, i, buffers, out, err);
        if (rc)
            return rc;
        for (unsigned k = 0; k < w->chunks[i].pages; k++) {
            fill_page(want, w->extents[extent].first + in_extent);
            CHECK(memcmp(want, out + k * MEMORY_PAGE, MEMORY_PAGE) == 0);
            if (++in_extent == w->extents[extent].pages) {
                extent++;
                in_extent = 0;
            }
        }
    }
    CHECK_INT(extent, w->n_extents);
    return RC_OK;
}

TEST(what_was_written_is_read_back_in_order)
{
    struct err err = ERR_INIT;
    struct packed p;
    pack(&p);
    CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT;
    CHECK_RC(open_it(&p, &w, &err), RC_NOT_FOUND);
    CHECK_OK(write_some(&p, &err));
    CHECK_OK(open_it(&p, &w, &err));
    CHECK_INT(w.pages, 94);
    CHECK_INT(w.n_chunks, 2);
    CHECK_INT(w.n_extents, 3);
    CHECK_OK(read_all(&w, &err));
    drop(&p);
}

TEST(in_object_storage_it_is_one_object_that_is_replaced_and_removed)
{
    struct err err = ERR_INIT;
    struct packed p;
    struct backend_info info;
    pack_in_objects(&p);
    CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT;
    CHECK_RC(open_it(&p, &w, &err), RC_NOT_FOUND);
    CHECK_OK(workingset_write(&p.place, &p.digest, some, 1, p.reader, &err));
    CHECK_OK(write_some(&p, &err));
    CHECK_OK(backend_stat(p.backend, KEY, &info, &err));
    CHECK_OK(open_it(&p, &w, &err));
    CHECK_INT(w.pages, 94);
    workingset_fetch(&w);
    CHECK_OK(read_all(&w, &err));
    workingset_done(&w);
    CHECK(faccessat(p.base, WORKINGSET_DIR, F_OK, 0) < 0);
    workingset_remove(&p.place);
    CHECK_RC(open_it(&p, &w, &err), RC_NOT_FOUND);
    workingset_remove(&p.place);
    drop(&p);
}

TEST(a_damaged_or_cut_off_object_is_noticed)
{
    struct err err = ERR_INIT;
    struct packed p;
    pack_in_objects(&p);
    CHECK_OK(write_some(&p, &err));
    struct backend_object *o = NULL;
    CHECK_OK(backend_open(p.backend, KEY, &o, &err));
    size_t size = (size_t)o->size;
    CLEANUP(mem_freep) uint8_t *good = mem_alloc(size);
    CLEANUP(mem_freep) uint8_t *bad = mem_alloc(size);
    CHECK_OK(backend_read(o, 0, good, size, &err));
    backend_closep(&o);
    for (size_t at = 0; at < size; at += 1 + at / 40) {
        CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT;
        memcpy(bad, good, size);
        bad[at] ^= 0x10;
        size_t len = at % 2 ? size : at; /* or it ends there */
        CHECK_OK(backend_remove(p.backend, KEY, &err));
        CHECK_OK(backend_put(p.backend, KEY, bad, len, &err));
        enum rc rc = open_it(&p, &w, &err);
        if (!rc)
            rc = read_all(&w, &err);
        CHECK(rc == RC_CORRUPT || rc == RC_UNSUPPORTED);
    }
    drop(&p);
}

TEST(a_record_of_another_memory_map_is_none)
{
    struct err err = ERR_INIT;
    struct packed p;
    struct digest other;
    pack(&p);
    digest_of("other", 5, &other);
    CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT;
    CHECK_OK(write_some(&p, &err));
    CHECK_RC(workingset_open(&p.place, &other, &w, &err), RC_NOT_FOUND);
    drop(&p);
}

TEST(a_newer_one_replaces_and_remove_removes)
{
    struct err err = ERR_INIT;
    struct packed p;
    pack(&p);
    CLEANUP(workingset_done) struct workingset old = WORKINGSET_INIT;
    CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT;
    CHECK_OK(write_some(&p, &err));
    CHECK_OK(open_it(&p, &old, &err));
    CHECK_OK(workingset_write(&p.place, &p.digest, some, 1, p.reader, &err));
    CHECK_OK(open_it(&p, &w, &err));
    CHECK_INT(w.pages, 3);
    CHECK_OK(read_all(&old, &err)); /* who has it open keeps it */
    workingset_done(&w);
    workingset_remove(&p.place);
    CHECK_RC(open_it(&p, &w, &err), RC_NOT_FOUND);
    workingset_remove(&p.place);
    drop(&p);
}

TEST(one_writes_at_a_time)
{
    struct err err = ERR_INIT;
    struct packed p;
    pack(&p);
    CHECK_OK(write_some(&p, &err));
    CLEANUP(fd_closep)
    int other = sys_openat(p.base, WORKINGSET_DIR "/.tmp-c", O_RDWR | O_CREAT, 0600);
    CHECK(flock(other, LOCK_EX) == 0);
    CHECK_RC(write_some(&p, &err), RC_UNAVAILABLE);
    fd_closep(&other);
    CHECK_OK(write_some(&p, &err)); /* what a crash has left is taken up */
    drop(&p);
}

TEST(a_flipped_bit_or_a_missing_end_is_noticed)
{
    struct err err = ERR_INIT;
    struct packed p;
    struct stat st;
    pack(&p);
    CHECK_OK(write_some(&p, &err));
    CLEANUP(fd_closep) int fd = sys_openat(p.base, WORKINGSET_DIR "/c", O_RDWR, 0);
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    for (off_t at = 0; at < st.st_size; at += 1 + at / 40) {
        CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT;
        uint8_t byte = 0, bad;
        CHECK(pread(fd, &byte, 1, at) == 1);
        bad = byte ^ 0x10;
        CHECK(pwrite(fd, &bad, 1, at) == 1);
        enum rc rc = open_it(&p, &w, &err);
        if (!rc)
            rc = read_all(&w, &err);
        CHECK(rc == RC_CORRUPT || rc == RC_UNSUPPORTED);
        CHECK(pwrite(fd, &byte, 1, at) == 1);
    }
    for (off_t size = st.st_size - 1; size >= 0; size -= 1 + size / 10) {
        CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT;
        CHECK(ftruncate(fd, size) == 0);
        CHECK_RC(open_it(&p, &w, &err), RC_CORRUPT);
    }
    drop(&p);
}

/* Whatever fails, and wherever the writer dies: the old one is there, or the new one. */
static void torture(enum fault_action action)
{
    struct err err = ERR_INIT;
    struct packed p;
    pack(&p);
    CHECK_OK(workingset_write(&p.place, &p.digest, some, 1, p.reader, &err));
    for (unsigned n = 0;; n++) {
        pid_t pid = fork();
        if (pid == 0) {
            fault_arm(n, action);
            enum rc rc = write_some(&p, &err);
            bool hit = fault_passed() > n;
            fault_disarm();
            _exit(rc ? 1 : hit ? 2 : 3);
        }
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT;
        CHECK_OK(open_it(&p, &w, &err));
        CHECK(w.pages == 3 || w.pages == 94);
        CHECK_OK(read_all(&w, &err));
        CHECK(WEXITSTATUS(status) != 1 || w.pages == 3);
        if (WEXITSTATUS(status) == 3)
            break;
        workingset_done(&w);
        CHECK_OK(workingset_write(&p.place, &p.digest, some, 1, p.reader, &err));
    }
    drop(&p);
}

TEST(with_each_fault_point_failing_it_is_the_old_or_the_new)
{
    torture(FAULT_FAIL);
}

TEST(with_death_at_each_fault_point_it_is_the_old_or_the_new)
{
    torture(FAULT_CRASH);
}

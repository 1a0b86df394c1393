#include "backend/drivers.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "store/pack.h"
#include "store/page_reader.h"
#include "store/page_writer.h"
#include "unit/store/broken.h"
#include "unit/store/samples.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct backend *open_mem(void)
{
    struct err err = ERR_INIT;
    struct backend *b = NULL;
    CHECK_OK(backend_mem_open(&b, &err));
    return b;
}

static unsigned count_packs(struct backend *b)
{
    char *keys[64];
    size_t n = sample_keys(b, PACK_PREFIX, keys);
    for (size_t i = 0; i < n; i++)
        mem_freep(&keys[i]);
    return (unsigned)n;
}

/* A third zero, a third said before, a third new. */
static void mix(uint64_t *numbers, size_t n, uint64_t first)
{
    for (size_t i = 0; i < n; i++)
        numbers[i] = i % 3 == 0 ? 0 : i % 3 == 1 ? first + i : first + i / 2;
}

#define SOME 1000U

TEST(pages_come_back_and_are_counted)
{
    struct err err = ERR_INIT;
    uint64_t numbers[SOME];
    struct page_writer_totals t;
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(backend_freep) struct backend *b = open_mem();
    mix(numbers, SOME, 1);
    CHECK_OK(sample_write(b, 7, numbers, SOME, &m, &t, &err));
    CHECK_OK(sample_check(b, &m, 7, numbers, SOME, &err));
    struct memory_totals all = memory_totals(&m);
    CHECK_INT(t.pages, SOME);
    CHECK_INT(t.zero, (SOME + 2) / 3);
    CHECK_INT(all.pages, SOME);
    CHECK_INT(all.zero, t.zero);
    CHECK_INT(t.pages, t.zero + t.known + all.stored);
    uint64_t packs = 0;
    for (size_t i = 0; i < m.n_packs; i++)
        packs += m.packs[i].size;
    CHECK_INT(t.written, packs);
    for (size_t i = 0; i < m.n_chunks; i++)
        CHECK(m.chunks[i].codec == COMPRESS_LZ4 && m.chunks[i].stored > 0);
}

TEST(a_second_checkpoint_refers_to_the_first_and_writes_nothing)
{
    struct err err = ERR_INIT;
    uint64_t numbers[SOME];
    struct page_writer_totals t;
    CLEANUP(memory_done) struct memory first = {0};
    CLEANUP(memory_done) struct memory second = {0};
    CLEANUP(backend_freep) struct backend *b = open_mem();
    mix(numbers, SOME, 1);
    CHECK_OK(sample_write(b, 7, numbers, SOME, &first, &t, &err));
    unsigned packs = count_packs(b);
    CHECK_OK(sample_write(b, 8, numbers, SOME, &second, &t, &err));
    CHECK_INT(t.written, 0);
    CHECK_INT(t.known, t.pages - t.zero);
    CHECK_INT(count_packs(b), packs);
    CHECK_INT(memory_totals(&second).bytes, memory_totals(&first).bytes);
    CHECK_OK(sample_check(b, &second, 8, numbers, SOME, &err));
}

TEST(only_what_changed_is_written)
{
    struct err err = ERR_INIT;
    uint64_t numbers[SOME];
    struct page_writer_totals whole, part;
    CLEANUP(memory_done) struct memory first = {0};
    CLEANUP(memory_done) struct memory second = {0};
    CLEANUP(backend_freep) struct backend *b = open_mem();
    for (size_t i = 0; i < SOME; i++)
        numbers[i] = i + 1;
    CHECK_OK(sample_write(b, 7, numbers, SOME, &first, &whole, &err));
    for (size_t i = 0; i < SOME; i += 20)
        numbers[i] += 1000000;
    CHECK_OK(sample_write(b, 7, numbers, SOME, &second, &part, &err));
    CHECK_INT(part.known, SOME - SOME / 20);
    CHECK(part.written < whole.written / 10);
    CHECK_OK(sample_check(b, &second, 7, numbers, SOME, &err));
}

TEST(streams_share_pages)
{
    struct err err = ERR_INIT;
    uint64_t numbers[SOME];
    struct page_writer_totals t;
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {.backend = b, .codec = COMPRESS_ZSTD, .threads = 3};
    for (size_t i = 0; i < SOME; i++)
        numbers[i] = i + 1;
    CHECK_OK(page_writer_open(&o, &w, &err));
    CHECK_OK(sample_give(w, 2, numbers, SOME, &err));
    CHECK_OK(sample_give(w, 1 | MEMORY_LAZY, numbers, SOME, &err));
    CHECK_OK(sample_give(w, 1, numbers, 0, &err));
    CHECK_INT(__atomic_load_n(page_writer_counter(w), __ATOMIC_RELAXED), 2UL * SOME * MEMORY_PAGE);
    CHECK_OK(page_writer_finish(w, &m, &t, &err));
    CHECK_INT(t.known, SOME);
    CHECK(m.n_streams == 3 && m.streams[0].id == 1 && m.streams[1].id == 2);
    CHECK_OK(sample_check(b, &m, 2, numbers, SOME, &err));
    CHECK_OK(sample_check(b, &m, 1 | MEMORY_LAZY, numbers, SOME, &err));
    CHECK_OK(sample_check(b, &m, 1, numbers, 0, &err));
}

TEST(what_cannot_be_a_stream_is_refused)
{
    struct err err = ERR_INIT;
    struct page_input *in = NULL;
    uint64_t numbers[100] = {1, 2, 3};
    struct page_writer_totals t;
    struct memory m;
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {.backend = b, .threads = 1};
    CHECK_OK(page_writer_open(&o, &w, &err));
    CHECK_OK(sample_give(w, 5, numbers, 100, &err));
    CHECK_RC(page_writer_input(w, 5, 1, &in, &err), RC_EXISTS);
    CHECK_RC(page_writer_input(w, 6, PAGE_STREAM_MAX + 1, &in, &err), RC_TOO_BIG);
    CHECK_OK(page_writer_input(w, 9, 3, &in, &err));
    struct page_block *block = page_writer_take(w, &err);
    CHECK(block);
    sample_page(1, page_block_data(block));
    page_writer_give(w, block, in, 0, 1);
    block = page_writer_take(w, &err);
    CHECK(block);
    page_writer_give(w, block, in, 1, 0);
    CHECK_RC(page_writer_finish(w, &m, &t, &err), RC_INVALID);
    CHECK_STR(err.msg, "page 1 of page image 9 was not given");
}

/* ---- files ---- */

static int make_file(const uint64_t *numbers, size_t n, size_t cut)
{
    int fd = sys_openat(AT_FDCWD, test_dir(), O_TMPFILE | O_RDWR, 0600);
    CHECK(fd >= 0);
    for (size_t i = 0; i < n; i++) {
        char page[MEMORY_PAGE];
        sample_page(numbers[i], page);
        CHECK(write(fd, page, sizeof(page)) == (ssize_t)sizeof(page));
    }
    CHECK(ftruncate(fd, (off_t)(n * MEMORY_PAGE - cut)) == 0);
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

TEST(a_file_is_a_stream_if_it_has_whole_pages)
{
    struct err err = ERR_INIT;
    uint64_t numbers[150];
    struct page_writer_totals t;
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {.backend = b, .threads = 2};
    mix(numbers, 150, 1);
    CLEANUP(fd_closep) int good = make_file(numbers, 150, 0);
    CLEANUP(fd_closep) int odd = make_file(numbers, 150, 1);
    CHECK_OK(page_writer_open(&o, &w, &err));
    CHECK_OK(sample_file(w, 3, good, &err));
    CHECK_RC(sample_file(w, 4, odd, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "ends inside a page"));
    CHECK_RC(sample_file(w, 3, good, &err), RC_EXISTS);
    CHECK_OK(page_writer_finish(w, &m, &t, &err));
    CHECK_OK(sample_check(b, &m, 3, numbers, 150, &err));
}

TEST(a_file_that_was_read_in_part_is_refused)
{
    struct err err = ERR_INIT;
    uint64_t numbers[150] = {0};
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {.backend = b, .threads = 1};
    CLEANUP(fd_closep) int fd = make_file(numbers, 150, 0);
    CHECK(lseek(fd, MEMORY_PAGE, SEEK_SET) > 0); /* as if it had become shorter meanwhile */
    CHECK_OK(page_writer_open(&o, &w, &err));
    CHECK_RC(sample_file(w, 3, fd, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "has become shorter"));
}

/* ---- memory is bounded ---- */

static void pause_a_little(void)
{
    struct timespec t = {0, 20000000};
    (void)nanosleep(&t, NULL);
}

TEST(a_held_writer_only_buffers_until_it_is_let_go)
{
    struct err err = ERR_INIT;
    uint64_t numbers[20 * MEMORY_CHUNK_PAGES];
    struct page_writer_totals t;
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(backend_freep) struct backend *inner = open_mem();
    CLEANUP(backend_freep) struct backend *b = broken_open(inner);
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {.backend = b, .codec = COMPRESS_LZ4, .threads = 2};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        numbers[i] = i + 1;
    CHECK_OK(page_writer_open(&o, &w, &err));
    page_writer_hold(w, true);
    CHECK_OK(sample_give(w, 1, numbers, ARRAY_LEN(numbers), &err));
    pause_a_little();
    CHECK_INT(broken_calls(b, BROKEN_BEGIN), 0);
    page_writer_hold(w, false);
    CHECK_OK(page_writer_finish(w, &m, &t, &err));
    CHECK(broken_calls(b, BROKEN_BEGIN) > 0);
    CHECK_OK(sample_check(b, &m, 1, numbers, ARRAY_LEN(numbers), &err));
}

/* 8 MiB of buffers and 40 MiB of pages: storing begins although the writer is held. */
TEST(full_buffers_begin_to_be_stored_although_held)
{
    struct err err = ERR_INIT;
    size_t n = (size_t)160 * MEMORY_CHUNK_PAGES;
    struct page_writer_totals t;
    CLEANUP(mem_freep) uint64_t *numbers = mem_alloc(n * sizeof(*numbers));
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {.backend = b, .codec = COMPRESS_LZ4, .threads = 2};
    for (size_t i = 0; i < n; i++)
        numbers[i] = i + 1;
    CHECK_OK(page_writer_open(&o, &w, &err));
    page_writer_hold(w, true);
    CHECK_OK(sample_give(w, 1, numbers, n, &err));
    CHECK_OK(page_writer_finish(w, &m, &t, &err));
    CHECK_OK(sample_check(b, &m, 1, numbers, n, &err));
}

static void *take_one(void *arg)
{
    struct err err = ERR_INIT;
    struct page_block *b = page_writer_take(arg, &err);
    CHECK(b);
    page_writer_give(arg, b, NULL, 0, 0);
    return NULL;
}

/* It looked for something to store when there was nothing: all buffers were being filled. */
TEST(who_waits_for_a_buffer_gets_the_last_one_that_was_given)
{
    enum { BLOCKS = 32 }; /* as many as there are at least */
    struct err err = ERR_INIT;
    struct timespec moment = {0, 50000000};
    struct page_writer_totals t;
    pthread_t waiter;
    struct page_input *in = NULL;
    struct page_block *blocks[BLOCKS];
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {.backend = b, .codec = COMPRESS_LZ4, .threads = 1};
    CHECK_OK(page_writer_open(&o, &w, &err));
    page_writer_hold(w, true);
    CHECK_OK(page_writer_input(w, 1, 1, &in, &err));
    for (size_t i = 0; i < BLOCKS; i++)
        CHECK((blocks[i] = page_writer_take(w, &err)));
    CHECK(pthread_create(&waiter, NULL, take_one, w) == 0);
    (void)nanosleep(&moment, NULL);
    sample_page(1, page_block_data(blocks[0]));
    page_writer_give(w, blocks[0], in, 0, 1);
    CHECK(pthread_join(waiter, NULL) == 0);
    for (size_t i = 1; i < BLOCKS; i++)
        page_writer_give(w, blocks[i], NULL, 0, 0);
    CHECK_OK(page_writer_finish(w, &m, &t, &err));
    CHECK_INT(t.pages, 1);
}

TEST(who_waits_for_a_buffer_hears_that_it_is_given_up)
{
    enum { BLOCKS = 32 };
    struct err err = ERR_INIT;
    struct page_block *blocks[BLOCKS];
    CLEANUP(cancel_done) struct cancel c = CANCEL_INIT;
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {.backend = b, .codec = COMPRESS_LZ4, .threads = 1};
    CHECK_OK(cancel_init(&c, &err));
    CHECK_OK(page_writer_open(&o, &w, &err));
    page_writer_heed(w, &c);
    for (size_t i = 0; i < BLOCKS; i++)
        CHECK((blocks[i] = page_writer_take(w, &err)));
    pid_t pid = fork(); /* the word comes while we wait, or before */
    CHECK(pid >= 0);
    if (pid == 0) {
        cancel_ask(&c);
        _exit(0);
    }
    CHECK(!page_writer_take(w, &err));
    CHECK(err.rc == RC_CANCELLED);
    CHECK(waitpid(pid, NULL, 0) == pid);
    for (size_t i = 0; i < BLOCKS; i++)
        page_writer_give(w, blocks[i], NULL, 0, 0);
}

/* Pages that were read ahead: some are referred to, some are not, and one was not read. */
TEST(a_stream_refers_to_pages_of_drafts)
{
    struct err err = ERR_INIT;
    struct page_writer_totals t;
    struct page_input *draft = NULL, *in = NULL;
    const uint64_t want[] = {7, 0, 5, 6};
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {.backend = b, .codec = COMPRESS_LZ4, .threads = 2};
    CHECK_OK(page_writer_open(&o, &w, &err));
    CHECK_OK(page_writer_draft(w, 10, &draft, &err));
    for (uint64_t i = 4; i < 8; i++) { /* pages 4, 5, 6, and 7, which is zero */
        struct page_block *block = page_writer_take(w, &err);
        CHECK(block);
        sample_page(i < 7 ? i : 0, page_block_data(block));
        page_writer_give(w, block, draft, i, 1);
    }
    CHECK_OK(page_writer_drain(w, &err));
    CHECK_OK(page_writer_input(w, 1, ARRAY_LEN(want), &in, &err));
    page_writer_refer(w, in, 1, 1, draft, 7);
    page_writer_refer(w, in, 2, 2, draft, 5);
    struct page_block *block = page_writer_take(w, &err);
    sample_page(7, page_block_data(block));
    page_writer_give(w, block, in, 0, 1);
    CHECK_OK(page_writer_finish(w, &m, &t, &err));
    CHECK_OK(sample_check(b, &m, 1, want, ARRAY_LEN(want), &err));
    CHECK_INT(m.n_streams, 1);
    CHECK_INT(t.pages, 4);
    CHECK_INT(t.zero, 1);
}

TEST(a_page_that_a_draft_does_not_have_cannot_be_referred_to)
{
    struct err err = ERR_INIT;
    struct page_writer_totals t;
    struct page_input *draft = NULL, *in = NULL;
    struct memory m = {0};
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {.backend = b, .codec = COMPRESS_LZ4, .threads = 1};
    CHECK_OK(page_writer_open(&o, &w, &err));
    CHECK_RC(page_writer_draft(w, PAGE_STREAM_MAX + 1, &draft, &err), RC_TOO_BIG);
    CHECK_OK(page_writer_draft(w, 1, &draft, &err));
    CHECK_OK(page_writer_input(w, 1, 1, &in, &err));
    page_writer_refer(w, in, 0, 1, draft, 0);
    CHECK_RC(page_writer_finish(w, &m, &t, &err), RC_INVALID);
}

TEST(a_full_table_costs_space_and_no_page)
{
    struct err err = ERR_INIT;
    uint64_t numbers[SOME];
    struct page_writer_totals t;
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(memory_done) struct memory again = {0};
    CLEANUP(backend_freep) struct backend *b = open_mem();
    for (size_t i = 0; i < SOME; i++)
        numbers[i] = 1 + i % (SOME / 2); /* each twice */
    for (unsigned known = 0; known < 2; known++) {
        CLEANUP(page_writer_freep) struct page_writer *w = NULL;
        struct page_writer_options o = {
            .backend = b, .codec = COMPRESS_LZ4, .threads = 2, .known_max = 64, .table_max = 100};
        struct memory *out = known ? &again : &m;
        CHECK_OK(page_writer_open(&o, &w, &err));
        CHECK_OK(sample_give(w, 1, numbers, SOME, &err));
        CHECK_OK(page_writer_finish(w, out, &t, &err));
        CHECK_OK(sample_check(b, out, 1, numbers, SOME, &err));
        CHECK(t.known >= 100 && t.known <= 200);
    }
}

TEST(packs_of_more_than_the_target_are_several)
{
    struct err err = ERR_INIT;
    size_t n = 68U << 8; /* 68 MiB, raw */
    struct page_writer_totals t;
    CLEANUP(mem_freep) uint64_t *numbers = mem_alloc(n * sizeof(*numbers));
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {.backend = b, .codec = COMPRESS_RAW, .threads = 1};
    for (size_t i = 0; i < n; i++)
        numbers[i] = i + 1;
    CHECK_OK(page_writer_open(&o, &w, &err));
    CHECK_OK(sample_give(w, 1, numbers, n, &err));
    CHECK_OK(page_writer_finish(w, &m, &t, &err));
    CHECK_INT(m.n_packs, 2);
    CHECK(m.packs[0].size >= PACK_TARGET && m.packs[0].size < PACK_TARGET + (1 << 20));
    CHECK_OK(sample_check(b, &m, 1, numbers, n, &err));
    for (size_t i = 1; i < m.n_chunks; i++) /* in the order in which a restore reads them */
        CHECK(m.chunks[i].pack > m.chunks[i - 1].pack ||
              m.chunks[i].offset > m.chunks[i - 1].offset);
}

/* ---- which packs are looked into ---- */

/* A pack of 100 pages. */
static void make_pack(struct backend *b, uint64_t first, char name[MEMORY_PACK_NAME_LEN + 1])
{
    struct err err = ERR_INIT;
    uint64_t numbers[100];
    struct page_writer_totals t;
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {.backend = b, .codec = COMPRESS_LZ4, .threads = 1};
    for (size_t i = 0; i < 100; i++)
        numbers[i] = first + i;
    CHECK_OK(page_writer_open(&o, &w, &err));
    CHECK_OK(sample_give(w, 1, numbers, 100, &err));
    CHECK_OK(page_writer_finish(w, &m, &t, &err));
    CHECK_INT(m.n_packs, 1);
    memcpy(name, m.packs[0].name, MEMORY_PACK_NAME_LEN + 1);
    pause_a_little(); /* the next one is newer */
}

static void learn_one(struct backend *b, char *const *prefer, size_t n_prefer, uint64_t first,
                      uint64_t want_known)
{
    struct err err = ERR_INIT;
    uint64_t numbers[100];
    struct page_writer_totals t;
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {.backend = b,
                                    .codec = COMPRESS_LZ4,
                                    .threads = 1,
                                    .prefer = prefer,
                                    .n_prefer = n_prefer,
                                    .packs_max = 1};
    for (size_t i = 0; i < 100; i++)
        numbers[i] = first + i;
    CHECK_OK(page_writer_open(&o, &w, &err));
    CHECK_OK(sample_give(w, 1, numbers, 100, &err));
    CHECK_OK(page_writer_finish(w, &m, &t, &err));
    CHECK_INT(t.known, want_known);
    CHECK_OK(sample_check(b, &m, 1, numbers, 100, &err));
}

TEST(preferred_packs_are_learned_first_then_the_newest)
{
    char old[MEMORY_PACK_NAME_LEN + 1], new[MEMORY_PACK_NAME_LEN + 1];
    char absent[] = "00000000000000000000000000000000";
    CLEANUP(backend_freep) struct backend *b = open_mem();
    make_pack(b, 1000, old);
    make_pack(b, 2000, new);
    CHECK(pack_newer(new, old) > 0);
    char *first[] = {old, old}, *none[] = {absent};
    learn_one(b, first, 2, 1000, 100);
    learn_one(b, NULL, 0, 2000, 100);
    learn_one(b, none, 1, 2000, 0); /* it was the only one to be looked into */
}

TEST(a_pack_that_cannot_be_read_is_not_referred_to)
{
    struct err err = ERR_INIT;
    uint64_t numbers[SOME];
    char *keys[64];
    struct page_writer_totals t;
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(memory_done) struct memory again = {0};
    CLEANUP(backend_freep) struct backend *inner = open_mem();
    CLEANUP(backend_freep) struct backend *b = broken_open(inner);
    mix(numbers, SOME, 1);
    CHECK_OK(backend_put(inner, "packs/readme", "x", 1, &err));
    CHECK_OK(sample_write(b, 1, numbers, SOME, &m, &t, &err));
    size_t n = sample_keys(inner, PACK_PREFIX, keys);
    for (size_t i = 0; i < n; i++) {
        if (strlen(keys[i]) == PACK_KEY_LEN - 1) {
            size_t len = 0;
            CLEANUP(mem_freep) char *bytes = sample_read(inner, keys[i], &len);
            bytes[len - 70] ^= 1;
            sample_replace(inner, keys[i], bytes, len);
        }
        mem_freep(&keys[i]);
    }
    CHECK_OK(sample_write(b, 1, numbers, SOME, &again, &t, &err));
    CHECK(t.written > 0);
    CHECK_OK(sample_check(b, &again, 1, numbers, SOME, &err));
}

/* ---- failures ---- */

TEST(each_failure_of_the_storage_ends_the_writing_and_nothing_else)
{
    struct err err = ERR_INIT;
    uint64_t numbers[SOME];
    struct page_writer_totals t;
    CLEANUP(backend_freep) struct backend *inner = open_mem();
    CLEANUP(backend_freep) struct backend *b = broken_open(inner);
    for (enum broken_call call = BROKEN_BEGIN; call <= BROKEN_LIST; call++)
        for (unsigned n = 0;; n++) {
            CLEANUP(memory_done) struct memory m = {0};
            /* New pages, for there must be something to write, and known ones. */
            mix(numbers, SOME, 1 + 100 * (uint64_t)call + n);
            broken_arm(b, call, n);
            enum rc rc = sample_write(b, 1, numbers, SOME, &m, &t, &err);
            bool hit = broken_calls(b, call) > n;
            broken_disarm(b);
            bool learns = call == BROKEN_OPEN || call == BROKEN_READ;
            if (rc != (hit && !learns ? RC_NO_SPACE : RC_OK))
                test_fail(__FILE__, __LINE__, "call %d, time %u: %s", (int)call, n, rc_name(rc));
            if (rc == RC_OK)
                CHECK_OK(sample_check(b, &m, 1, numbers, SOME, &err));
            if (!hit || n == 20)
                break;
        }
}

TEST(who_waits_for_a_buffer_learns_of_the_failure)
{
    struct err err = ERR_INIT;
    size_t n = (size_t)100 * MEMORY_CHUNK_PAGES;
    struct page_writer_totals t;
    struct memory m;
    CLEANUP(mem_freep) uint64_t *numbers = mem_alloc(n * sizeof(*numbers));
    CLEANUP(backend_freep) struct backend *inner = open_mem();
    CLEANUP(backend_freep) struct backend *b = broken_open(inner);
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {.backend = b, .codec = COMPRESS_LZ4, .threads = 2};
    for (size_t i = 0; i < n; i++)
        numbers[i] = i + 1;
    broken_arm(b, BROKEN_APPEND, 0);
    CHECK_OK(page_writer_open(&o, &w, &err));
    CHECK_RC(sample_give(w, 1, numbers, n, &err), RC_NO_SPACE);
    CHECK(strstr(err.msg, "it is full"));
    struct err other = ERR_INIT;
    CHECK(page_writer_finish(w, &m, &t, &other) == RC_NO_SPACE);
    CHECK_STR(other.msg, err.msg);
}

TEST(a_writer_that_is_given_up_leaves_no_pack)
{
    struct err err = ERR_INIT;
    uint64_t numbers[SOME];
    CLEANUP(backend_freep) struct backend *b = open_mem();
    struct page_writer_options o = {.backend = b, .codec = COMPRESS_LZ4, .threads = 2};
    mix(numbers, SOME, 1);
    for (int held = 0; held < 2; held++) {
        CLEANUP(page_writer_freep) struct page_writer *w = NULL;
        CHECK_OK(page_writer_open(&o, &w, &err));
        page_writer_hold(w, held);
        CHECK_OK(sample_give(w, 1, numbers, SOME, &err));
        page_writer_freep(&w);
        CHECK(!w);
        CHECK_INT(count_packs(b), 0);
    }
    struct page_writer *none = NULL;
    page_writer_freep(&none);
}

/* ---- threads ---- */

struct giver {
    struct page_writer *w;
    pthread_t thread;
    uint32_t id;
    enum rc rc;
    uint64_t numbers[SOME];
};

static void *give(void *arg)
{
    struct giver *g = arg;
    struct err err = ERR_INIT;
    g->rc = sample_give(g->w, g->id, g->numbers, SOME, &err);
    return NULL;
}

/* Eight threads store the same pages, given by four at once: each page is in the store once. */
TEST(many_threads_store_each_page_once)
{
    struct err err = ERR_INIT;
    struct page_writer_totals t;
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(backend_freep) struct backend *b = open_mem();
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    CLEANUP(mem_freep) struct giver *givers = mem_zalloc(4 * sizeof(*givers));
    struct page_writer_options o = {.backend = b, .codec = COMPRESS_LZ4, .threads = 8};
    CHECK_OK(page_writer_open(&o, &w, &err));
    for (uint32_t i = 0; i < 4; i++) {
        givers[i].w = w;
        givers[i].id = i;
        for (size_t k = 0; k < SOME; k++)
            givers[i].numbers[k] = (k * 7 + i) % 500;
        CHECK(pthread_create(&givers[i].thread, NULL, give, &givers[i]) == 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        CHECK(pthread_join(givers[i].thread, NULL) == 0);
        CHECK_INT(givers[i].rc, RC_OK);
    }
    CHECK_OK(page_writer_finish(w, &m, &t, &err));
    CHECK_INT(memory_totals(&m).stored, 499);
    for (uint32_t i = 0; i < 4; i++)
        CHECK_OK(sample_check(b, &m, i, givers[i].numbers, SOME, &err));
}

#include "base/compiler.h"
#include "base/sys.h"
#include "container/pages.h"
#include "harness/test.h"

#include <sys/mman.h>
#include <unistd.h>

#define PAGES 64U

struct seen {
    uint64_t base, page[PAGES];
    unsigned runs, stop_after;
};

static enum rc see(void *arg, const struct pages_run *run, struct err *err)
{
    struct seen *s = arg;
    if (s->runs == s->stop_after)
        return err_set(err, RC_CANCELLED, "enough");
    s->runs++;
    for (uint64_t i = 0; i < run->pages; i++)
        s->page[(run->address - s->base) / PAGES_SIZE + i]++;
    return RC_OK;
}

static uint8_t *area(void)
{
    uint8_t *p =
        mmap(NULL, PAGES * PAGES_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED && madvise(p, PAGES * PAGES_SIZE, MADV_NOHUGEPAGE) == 0);
    return p;
}

TEST(written_pages_are_listed_once_and_no_others)
{
    struct err err = ERR_INIT;
    int fd = -1;
    if (!pages_can_scan())
        test_skip("kernel: no PAGEMAP_SCAN");
    uint8_t *p = area();
    struct seen s = {.base = (uint64_t)(uintptr_t)p, .stop_after = PAGES};
    for (unsigned i = 0; i < PAGES; i += 3)
        p[i * PAGES_SIZE] = 1;
    CHECK_OK(pages_open(getpid(), &fd, &err));
    CHECK_OK(pages_scan(fd, s.base, s.base + PAGES * PAGES_SIZE, see, &s, &err));
    for (unsigned i = 0; i < PAGES; i++)
        CHECK_INT(s.page[i], i % 3 == 0);
    fd_closep(&fd);
    (void)munmap(p, PAGES * PAGES_SIZE);
}

struct row {
    uint64_t next;
    unsigned runs;
};

static enum rc in_a_row(void *arg, const struct pages_run *run, struct err *err)
{
    struct row *r = arg;
    (void)err;
    CHECK(run->address >= r->next && run->pages == 1);
    r->next = run->address + PAGES_SIZE;
    r->runs++;
    return RC_OK;
}

/* More runs than the kernel collects at a time, in less than one answer and in several. */
TEST(many_runs_are_listed_once_and_in_order)
{
    struct err err = ERR_INIT;
    int fd = -1;
    if (!pages_can_scan())
        test_skip("kernel: no PAGEMAP_SCAN");
    CHECK_OK(pages_open(getpid(), &fd, &err));
    for (unsigned runs = 500; runs < 5000; runs += 513) {
        size_t bytes = (size_t)runs * 2 * PAGES_SIZE;
        uint8_t *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        struct row r = {0};
        CHECK(p != MAP_FAILED && madvise(p, bytes, MADV_NOHUGEPAGE) == 0);
        for (size_t i = 0; i < runs; i++)
            p[i * 2 * PAGES_SIZE] = 1;
        uint64_t start = (uint64_t)(uintptr_t)p;
        CHECK_OK(pages_scan(fd, start, start + bytes, in_a_row, &r, &err));
        CHECK_INT(r.runs, runs);
        CHECK(munmap(p, bytes) == 0);
    }
    fd_closep(&fd);
}

TEST(an_error_of_the_visitor_ends_the_scan)
{
    struct err err = ERR_INIT;
    int fd = -1;
    if (!pages_can_scan())
        test_skip("kernel: no PAGEMAP_SCAN");
    uint8_t *p = area();
    struct seen s = {.base = (uint64_t)(uintptr_t)p, .stop_after = 2};
    for (unsigned i = 0; i < PAGES; i += 2)
        p[i * PAGES_SIZE] = 1;
    CHECK_OK(pages_open(getpid(), &fd, &err));
    CHECK_RC(pages_scan(fd, s.base, s.base + PAGES * PAGES_SIZE, see, &s, &err), RC_CANCELLED);
    CHECK_INT(s.runs, 2);
    fd_closep(&fd);
    (void)munmap(p, PAGES * PAGES_SIZE);
}

TEST(a_process_that_is_not_there_is_said)
{
    struct err err = ERR_INIT;
    int fd = -1;
    CHECK_RC(pages_open(0x3ffffff, &fd, &err), RC_NOT_FOUND);
    CHECK_INT(fd, -1);
}

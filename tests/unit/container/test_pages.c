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

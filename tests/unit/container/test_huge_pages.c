#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"
#include "container/huge_pages.h"
#include "container/maps.h"
#include "container/task.h"
#include "harness/test.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIECES 4U
#define LOOKS 5U
#define SIZE (PIECES * HUGE_PAGES_SIZE)

struct asked {
    unsigned times, most;
};

static bool more(void *arg)
{
    struct asked *a = arg;
    return a->times++ < a->most;
}

static void needs_huge_pages(void)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (fs_read_file(AT_FDCWD, "/sys/kernel/mm/transparent_hugepage/enabled", 256, &text, &err) ||
        strstr(buf_str(&text), "[never]"))
        test_skip("machine: no transparent huge pages");
    if (!huge_pages_can())
        test_skip("kernel: no MADV_COLLAPSE");
}

/* Full of small pages, in a mapping that wants huge ones. */
static uint8_t *area(uint8_t **out_mapping)
{
    uint8_t *all = mmap(NULL, SIZE + HUGE_PAGES_SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(all != MAP_FAILED);
    uint64_t at = ((uint64_t)(uintptr_t)all + HUGE_PAGES_SIZE - 1) & ~(HUGE_PAGES_SIZE - 1);
    uint8_t *p = all + (at - (uint64_t)(uintptr_t)all);
    CHECK(madvise(p, SIZE, MADV_NOHUGEPAGE) == 0);
    for (size_t i = 0; i < SIZE; i += 4096)
        p[i] = (uint8_t)(i / 4096 + 1);
    CHECK(madvise(p, SIZE, MADV_HUGEPAGE) == 0);
    *out_mapping = all;
    return p;
}

/* How many huge pages lie there: one begins where the kernel says that it does. */
static unsigned huge_at(const uint8_t *p)
{
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    struct err err = ERR_INIT;
    char start[32];
    CHECK_OK(task_open_proc("/proc", &proc, &err));
    CHECK_OK(task_open(proc, getpid(), &task, &err));
    CHECK_OK(task_read(task, "smaps", &text, &err));
    (void)snprintf(start, sizeof(start), "%jx-", (uintmax_t)(uintptr_t)p);
    const char *at = strstr(buf_str(&text), start);
    CHECK(at != NULL);
    at = strstr(at, "AnonHugePages:");
    CHECK(at != NULL);
    return (unsigned)(strtoul(at + strlen("AnonHugePages:"), NULL, 10) * 1024 / HUGE_PAGES_SIZE);
}

static enum rc join_mine(unsigned most)
{
    struct err err = ERR_INIT;
    struct proc_facts self;
    struct asked asked = {0, most};
    CHECK_OK(proc_facts_read(getpid(), &self, &err));
    return huge_pages_join(&self, more, &asked, &err);
}

/* How many huge pages there are afterwards.  The kernel joins pages by itself now and then, so that
 * one look says little: the least of some is meant, with `hole` one small page missing. */
static unsigned least_after(unsigned most, bool hole)
{
    unsigned least = UINT_MAX;
    for (unsigned i = 0; i < LOOKS; i++) {
        uint8_t *mapping = NULL;
        uint8_t *p = area(&mapping);
        CHECK(!hole || madvise(p + 4096, 4096, MADV_DONTNEED) == 0);
        CHECK_INT(join_mine(most), RC_OK);
        unsigned huge = huge_at(p);
        least = huge < least ? huge : least;
        for (size_t k = hole ? HUGE_PAGES_SIZE : 0; k < SIZE; k += 4096)
            CHECK_INT(p[k], (uint8_t)(k / 4096 + 1));
        (void)munmap(mapping, SIZE + HUGE_PAGES_SIZE);
    }
    return least;
}

TEST(small_pages_become_huge_ones_and_keep_their_content)
{
    needs_huge_pages();
    CHECK_INT(least_after(0, false), 0);
    CHECK_INT(least_after(1000000, false), PIECES);
}

TEST(memory_never_gets_more)
{
    needs_huge_pages();
    CHECK_INT(least_after(1000000, true), PIECES - 1);
}

TEST(what_a_child_shares_stays_shared)
{
    uint8_t *mapping = NULL;
    needs_huge_pages();
    uint8_t *p = area(&mapping);
    pid_t child = fork();
    if (child == 0) {
        (void)pause();
        _exit(0);
    }
    CHECK(child > 0);
    enum rc rc = join_mine(1000000);
    unsigned huge = huge_at(p);
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    CHECK_INT(rc, RC_OK);
    CHECK_INT(huge, 0);
    (void)munmap(mapping, SIZE + HUGE_PAGES_SIZE);
}

TEST(who_does_not_want_them_gets_none)
{
    uint8_t *mapping = NULL;
    needs_huge_pages();
    uint8_t *p = area(&mapping);
    CHECK(madvise(p, SIZE, MADV_NOHUGEPAGE) == 0);
    CHECK_INT(join_mine(1000000), RC_OK);
    CHECK_INT(huge_at(p), 0);
    (void)munmap(mapping, SIZE + HUGE_PAGES_SIZE);
}

TEST(a_process_that_has_ended_is_told_of)
{
    struct err err = ERR_INIT;
    struct proc_facts gone = {0};
    struct asked asked = {0, 1000000};
    needs_huge_pages();
    CHECK_OK(proc_facts_read(getpid(), &gone, &err));
    gone.start++; /* somebody else who has its number */
    CHECK_INT(huge_pages_join(&gone, more, &asked, &err), RC_NOT_FOUND);
    gone.pid = 0x3fffffff;
    CHECK_INT(huge_pages_join(&gone, more, &asked, &err), RC_NOT_FOUND);
    CHECK_INT(asked.times, 0);
}

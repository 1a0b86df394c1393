#include "base/compiler.h"
#include "base/sys.h"
#include "engine/census.h"
#include "harness/test.h"

#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 128U
#define BYTES (PAGES * PAGES_SIZE)

struct seen {
    uint64_t base;
    unsigned page[PAGES];
};

static enum rc see(void *arg, const struct pages_run *run, struct err *err)
{
    struct seen *s = arg;
    (void)err;
    for (uint64_t i = 0; i < run->pages; i++)
        s->page[(run->address - s->base) / PAGES_SIZE + i]++;
    return RC_OK;
}

/* Every third page of a mapping is written, between mappings that are not joined with it. */
static uint8_t *make_area(void)
{
    uint8_t *p = mmap(NULL, 3 * BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    CHECK(mprotect(p + BYTES, BYTES, PROT_READ | PROT_WRITE) == 0 &&
          madvise(p + BYTES, BYTES, MADV_NOHUGEPAGE) == 0);
    for (unsigned i = 0; i < PAGES; i += 3)
        p[BYTES + i * PAGES_SIZE] = 1;
    return p + BYTES;
}

static pid_t start_stopped(void)
{
    int status = 0;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        for (;;)
            (void)pause();
    CHECK(ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0);
    CHECK(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0);
    CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
    return pid;
}

static void end(pid_t pid)
{
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
}

TEST(pages_of_a_stopped_process_are_known_when_it_is_gone)
{
    struct err err = ERR_INIT;
    if (!pages_can_scan())
        test_skip("kernel: no PAGEMAP_SCAN");
    uint8_t *area = make_area();
    pid_t pid = start_stopped();
    const struct proc_facts *tasks = NULL;
    size_t n = 0;
    bool listed = false;
    CLEANUP(census_endp) struct census *c = census_begin(getpid(), NULL);
    CHECK_OK(census_tasks(c, &tasks, &n, &err));
    for (size_t i = 0; i < n; i++)
        listed = listed || (tasks[i].pid == pid && tasks[i].tracer == getpid());
    CHECK(listed);
    end(pid);
    uint64_t start = (uint64_t)(uintptr_t)area;
    struct seen all = {.base = start}, part = {.base = start};
    CHECK_OK(census_scan(c, pid, -1, start, start + BYTES, see, &all, &err));
    CHECK_OK(
        census_scan(c, pid, -1, start + 3 * PAGES_SIZE, start + 7 * PAGES_SIZE, see, &part, &err));
    for (unsigned i = 0; i < PAGES; i++) {
        CHECK_INT(all.page[i], i % 3 == 0);
        CHECK_INT(part.page[i], i == 3 || i == 6);
    }
    (void)munmap(area - BYTES, 3 * BYTES);
}

/* A process that was not stopped, and what lies beside the mappings of one that was. */
TEST(what_was_not_looked_at_is_looked_at_then)
{
    struct err err = ERR_INIT;
    int fd = -1;
    if (!pages_can_scan())
        test_skip("kernel: no PAGEMAP_SCAN");
    uint8_t *area = make_area();
    uint64_t start = (uint64_t)(uintptr_t)area;
    pid_t pid = start_stopped();
    CLEANUP(census_endp) struct census *c = census_begin(getpid(), NULL);
    struct seen own = {.base = start}, wide = {.base = start};
    CHECK_OK(pages_open(getpid(), &fd, &err));
    CHECK_OK(census_scan(c, getpid(), fd, start, start + BYTES, see, &own, &err));
    fd_closep(&fd);
    CHECK_OK(pages_open(pid, &fd, &err));
    CHECK_OK(census_scan(c, pid, fd, start - BYTES, start + 2 * BYTES, see, &wide, &err));
    for (unsigned i = 0; i < PAGES; i++) {
        CHECK_INT(own.page[i], i % 3 == 0);
        CHECK_INT(wide.page[i], i % 3 == 0);
    }
    end(pid);
    CHECK_RC(census_scan(c, getpid(), -1, start, start + BYTES, see, &own, &err), RC_IO);
    fd_closep(&fd);
    (void)munmap(area - BYTES, 3 * BYTES);
}

#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "pager/space.h"
#include "pager/uffd.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE REGIONS_PAGE
#define PAGES 16U

/* Memory of this process that a space of its own is to fill; page i holds i + 1 everywhere. */
struct stage {
    struct space *space;
    uint8_t *at;
    struct space *child;
    unsigned faults;
    bool served; /* by serve() in a thread */
};

static uint8_t source[PAGES * PAGE];

static int open_uffd(void)
{
    struct uffdio_api api = {.api = UFFD_API,
                             .features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
                                         UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP};
    if (uffd_check(NULL) != RC_OK)
        test_skip("machine: userfaultfd needs CAP_SYS_PTRACE");
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    CHECK(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0);
    return fd;
}

static void set_up(struct stage *g)
{
    struct regions r = {.missing = 0};
    int fd = open_uffd();
    for (size_t i = 0; i < PAGES; i++)
        memset(source + i * PAGE, (int)i + 1, PAGE);
    *g = (struct stage){
        .at = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)};
    CHECK(g->at != MAP_FAILED);
    struct uffdio_register reg = {.range = {(uintptr_t)g->at, PAGES * PAGE},
                                  .mode = UFFDIO_REGISTER_MODE_MISSING};
    CHECK(ioctl(fd, UFFDIO_REGISTER, &reg) == 0);
    regions_add(&r, (uintptr_t)g->at, PAGES, 5, 100);
    g->space = space_new(fd, 1, &r);
}

static void tear_down(struct stage *g)
{
    space_free(g->space);
    space_free(g->child);
    (void)munmap(g->at, PAGES * PAGE);
}

static struct regions_run run_at(const struct stage *g, size_t page, size_t n)
{
    return (struct regions_run){(uintptr_t)g->at + page * PAGE, n, 100 + page, 5};
}

static void on_fault(void *arg, struct space *s, uint64_t address)
{
    struct stage *g = arg;
    struct regions_run run;
    struct err err = ERR_INIT;
    g->faults++;
    if (space_find(s, address, 1, &run))
        CHECK(space_give(s, &run, source + (run.first - 100) * PAGE, &err) == SPACE_OK);
    else
        CHECK(space_give_zero(s, address, &err) == SPACE_OK);
}

static void on_forked(void *arg, struct space *child)
{
    struct stage *g = arg;
    g->child = child;
}

/* Serve events and faults until told to stop. */
static void *serve(void *arg)
{
    struct stage *g = arg;
    struct space_hooks hooks = {on_fault, on_forked, g};
    struct err err = ERR_INIT;
    while (!__atomic_load_n(&g->served, __ATOMIC_ACQUIRE)) {
        struct pollfd p[2] = {{g->space->uffd, POLLIN, 0},
                              {g->child ? g->child->uffd : -1, POLLIN, 0}};
        (void)poll(p, 2, 5);
        CHECK_OK(space_events(g->space, &hooks, &err));
        if (g->child)
            CHECK_OK(space_events(g->child, &hooks, &err));
    }
    return NULL;
}

/* Do something to the memory with events being served meanwhile. */
static void with_server(struct stage *g, void (*act)(struct stage *g))
{
    pthread_t t;
    g->served = false;
    CHECK(pthread_create(&t, NULL, serve, g) == 0);
    act(g);
    __atomic_store_n(&g->served, true, __ATOMIC_RELEASE);
    CHECK(pthread_join(t, NULL) == 0);
}

static bool holds(const uint8_t *page, uint8_t value)
{
    for (size_t i = 0; i < PAGE; i++)
        if (page[i] != value)
            return false;
    return true;
}

TEST(pages_are_given_once_and_are_then_there)
{
    struct err err = ERR_INIT;
    struct stage g;
    set_up(&g);
    struct regions_run run = run_at(&g, 0, PAGES);
    CHECK(space_give(g.space, &run, source, &err) == SPACE_OK);
    CHECK_INT(space_missing(g.space), 0);
    for (size_t i = 0; i < PAGES; i++)
        CHECK(holds(g.at + i * PAGE, (uint8_t)(i + 1)));
    memset(g.at, 99, PAGE);
    CHECK(space_give(g.space, &run, source, &err) == SPACE_OK); /* not again */
    CHECK(holds(g.at, 99));
    CHECK(space_finish(g.space));
    tear_down(&g);
}

TEST(what_comes_from_elsewhere_by_now_is_not_given)
{
    struct err err = ERR_INIT;
    struct stage g;
    set_up(&g);
    struct regions_run other = run_at(&g, 3, 2);
    other.first = 777;
    CHECK(space_give(g.space, &other, source, &err) == SPACE_OK);
    CHECK_INT(space_missing(g.space), PAGES);
    CHECK(!space_finish(g.space)); /* something is missing */
    tear_down(&g);
}

static void touch(struct stage *g)
{
    CHECK(holds(g->at + 7 * PAGE, 8));
    regions_filled(&g->space->regions, (uintptr_t)g->at + 9 * PAGE, 1);
    CHECK(holds(g->at + 9 * PAGE, 0));
}

TEST(a_fault_is_told_and_who_waited_goes_on)
{
    struct stage g;
    set_up(&g);
    with_server(&g, touch);
    CHECK_INT(g.faults, 2);
    CHECK_INT(space_missing(g.space), PAGES - 2);
    tear_down(&g);
}

static void drop(struct stage *g)
{
    CHECK(madvise(g->at + 4 * PAGE, 2 * PAGE, MADV_DONTNEED) == 0);
}

/* Once only: where nothing is, something of the C library may be a moment later. */
static void drop_and_unmap(struct stage *g)
{
    drop(g);
    CHECK(munmap(g->at + 8 * PAGE, PAGE) == 0);
}

TEST(what_was_dropped_or_unmapped_is_no_longer_missing)
{
    struct err err = ERR_INIT;
    struct stage g;
    set_up(&g);
    with_server(&g, drop_and_unmap);
    CHECK_INT(space_missing(g.space), PAGES - 3);
    struct regions_run run = run_at(&g, 0, 8);
    CHECK(space_give(g.space, &run, source, &err) == SPACE_OK);
    CHECK(holds(g.at + 3 * PAGE, 4) && holds(g.at + 6 * PAGE, 7));
    with_server(&g, drop); /* again, after it was given nothing */
    CHECK(space_missing(g.space) == 7);
    tear_down(&g);
}

static void move_some(struct stage *g)
{
    uint8_t *to = mmap(NULL, 4 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(mremap(g->at + 2 * PAGE, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
    for (size_t i = 0; i < 4; i++)
        CHECK(holds(to + i * PAGE, (uint8_t)(i + 3)));
    (void)munmap(to, 4 * PAGE);
}

TEST(memory_that_is_moved_keeps_what_it_waits_for)
{
    struct stage g;
    set_up(&g);
    with_server(&g, move_some);
    CHECK_INT(space_missing(g.space), PAGES - 4);
    tear_down(&g);
}

static void fork_one(struct stage *g)
{
    int status = 0;
    /* Not fork(): under the thread sanitizer it has locks which the server wants, too, and does not
     * return before the server has heard of it. */
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        _exit(holds(g->at + 5 * PAGE, 6) ? 0 : 1);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(holds(g->at + 5 * PAGE, 6));
}

TEST(a_forked_process_gets_its_own_copy_and_its_end_is_noticed)
{
    struct err err = ERR_INIT;
    struct stage g;
    set_up(&g);
    with_server(&g, fork_one);
    CHECK(g.child && space_missing(g.child) == PAGES - 1);
    struct regions_run run = run_at(&g, 0, 4);
    CHECK(space_give(g.child, &run, source, &err) == SPACE_OK);
    CHECK_INT(space_missing(g.child), 0); /* nobody is there who misses it */
    CHECK(space_finish(g.child));
    tear_down(&g);
}

TEST(a_place_without_a_mapping_is_early)
{
    struct err err = ERR_INIT;
    struct stage g;
    set_up(&g);
    /* Below: above it the address space may end. */
    struct regions_run run = {(uintptr_t)g.at - ((uint64_t)1 << 30), 1, 0, 9};
    regions_add(&g.space->regions, run.address, 1, 9, 0);
    CHECK(space_give(g.space, &run, source, &err) == SPACE_EARLY);
    tear_down(&g);
}

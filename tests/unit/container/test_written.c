#include "base/clock.h"
#include "base/compiler.h"
#include "base/sys.h"
#include "container/pages.h"
#include "container/written.h"
#include "harness/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGES 64U
#define BYTES (PAGES * PAGES_SIZE)

/* A child whose memory is changed by commands, so that what each does to the mark can be seen. */
struct child {
    pid_t pid;
    int to, from;
    char *at; /* of its memory, in our address space too */
};

static char *spare; /* PAGES pages after the memory */

static void obey(char *at, char command)
{
    switch (command) {
    case 'w': /* write page 5 */
        at[5 * PAGES_SIZE]++;
        break;
    case 'd': /* drop page 5, and look at it */
        (void)madvise(at + 5 * PAGES_SIZE, PAGES_SIZE, MADV_DONTNEED);
        (void)*(volatile char *)(at + 5 * PAGES_SIZE);
        break;
    case 'n': /* new memory at the place */
        (void)mmap(at, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                   0);
        memset(at, 9, BYTES);
        break;
    case 'm': /* there and back */
        (void)mremap(at, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, spare);
        (void)mremap(spare, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, at);
        break;
    case 'p':
        (void)mprotect(at, BYTES, PROT_READ);
        (void)mprotect(at, BYTES, PROT_READ | PROT_WRITE);
        break;
    case 'r': /* the kernel writes */
        (void)!pread(open("/proc/self/stat", O_RDONLY | O_CLOEXEC), at + 5 * PAGES_SIZE, 8, 0);
        break;
    case 'f':
        if (fork() == 0)
            _exit(at[0] + (at[7 * PAGES_SIZE] = 1));
        break;
    default:
        break;
    }
}

static struct child start(void)
{
    int down[2], up[2];
    char *at = mmap(NULL, 3 * BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED && pipe(down) == 0 && pipe(up) == 0);
    CHECK(mprotect(at, BYTES, PROT_READ | PROT_WRITE) == 0);
    spare = at + 2 * BYTES;
    pid_t pid = fork();
    if (pid == 0) {
        char c = 0;
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)madvise(at, BYTES, MADV_NOHUGEPAGE);
        memset(at, 1, BYTES);
        while (write(up[1], &c, 1) == 1 && read(down[0], &c, 1) == 1)
            obey(at, c);
        _exit(0);
    }
    (void)close(down[0]);
    (void)close(up[1]);
    struct child c = {pid, down[1], up[0], at};
    char byte = 0;
    CHECK(read(c.from, &byte, 1) == 1);
    return c;
}

static void tell(const struct child *c, char command)
{
    char byte = 0;
    CHECK(write(c->to, &command, 1) == 1 && read(c->from, &byte, 1) == 1);
}

static void end(struct child *c)
{
    fd_closep(&c->to);
    fd_closep(&c->from);
    (void)kill(c->pid, SIGKILL);
    CHECK(waitpid(c->pid, NULL, 0) == c->pid);
    CHECK(munmap(c->at, 3 * BYTES) == 0);
}

struct seen {
    uint64_t base;
    bool listed[PAGES], unwritten[PAGES];
};

static enum rc see(void *arg, const struct pages_run *run, struct err *err)
{
    struct seen *s = arg;
    (void)err;
    for (uint64_t i = 0; i < run->pages; i++) {
        s->listed[(run->address - s->base) / PAGES_SIZE + i] = true;
        s->unwritten[(run->address - s->base) / PAGES_SIZE + i] = run->unwritten;
    }
    return RC_OK;
}

/* Attach, register and protect all of it. */
static int watch(const struct child *c)
{
    struct err err = ERR_INIT;
    CLEANUP(halt_endp) struct halt *h = NULL;
    struct seen s = {.base = (uint64_t)(uintptr_t)c->at};
    int uffd = -1, pagemap = -1;
    if (!written_can() || !pages_can_scan())
        test_skip("kernel: cannot tell what a program writes");
    CHECK_OK(halt_tree(c->pid, clock_now() + 10 * CLOCK_S, &h, &err));
    CHECK_OK(written_attach(h, c->pid, &uffd, &err));
    CHECK_OK(pages_open(c->pid, &pagemap, &err));
    CHECK(!pages_registered(pagemap, s.base, s.base + BYTES));
    CHECK_RC(pages_protect(pagemap, s.base, s.base + BYTES, see, &s, &err), RC_DENIED);
    CHECK_OK(written_register(uffd, s.base, s.base + BYTES, &err));
    CHECK(pages_registered(pagemap, s.base, s.base + BYTES));
    CHECK_OK(pages_protect(pagemap, s.base, s.base + BYTES, see, &s, &err));
    for (unsigned i = 0; i < PAGES; i++)
        CHECK(s.listed[i] && !s.unwritten[i]);
    fd_closep(&pagemap);
    return uffd;
}

static struct seen look(const struct child *c)
{
    struct err err = ERR_INIT;
    struct seen s = {.base = (uint64_t)(uintptr_t)c->at};
    int pagemap = -1;
    CHECK_OK(pages_open(c->pid, &pagemap, &err));
    CHECK_OK(pages_scan(pagemap, s.base, s.base + BYTES, see, &s, &err));
    fd_closep(&pagemap);
    return s;
}

static unsigned unwritten(const struct seen *s)
{
    unsigned n = 0;
    for (unsigned i = 0; i < PAGES; i++)
        n += s->listed[i] && s->unwritten[i];
    return n;
}

/* How many pages still count as unwritten after a command. */
static struct seen after(char command)
{
    struct child c = start();
    int uffd = watch(&c);
    struct seen before = look(&c);
    CHECK_INT(unwritten(&before), PAGES);
    tell(&c, command);
    struct seen s = look(&c);
    fd_closep(&uffd);
    struct seen closed = look(&c);
    CHECK_INT(unwritten(&closed), 0);
    end(&c);
    return s;
}

TEST(a_written_page_and_no_other_loses_its_mark)
{
    struct seen s = after('w');
    CHECK_INT(unwritten(&s), PAGES - 1);
    CHECK(!s.unwritten[5]);
}

TEST(a_page_that_the_kernel_writes_loses_its_mark)
{
    struct seen s = after('r');
    CHECK_INT(unwritten(&s), PAGES - 1);
    CHECK(!s.unwritten[5]);
}

TEST(a_dropped_page_loses_its_mark)
{
    struct seen s = after('d');
    CHECK_INT(unwritten(&s), PAGES - 1);
    CHECK(!s.listed[5] || !s.unwritten[5]);
}

TEST(new_memory_at_the_place_has_no_mark)
{
    struct seen s = after('n');
    CHECK_INT(unwritten(&s), 0);
}

TEST(moved_memory_has_no_mark)
{
    struct seen s = after('m');
    CHECK_INT(unwritten(&s), 0);
}

TEST(a_change_of_rights_is_no_write)
{
    struct seen s = after('p');
    CHECK_INT(unwritten(&s), PAGES);
}

TEST(what_a_child_writes_is_not_the_parents)
{
    struct seen s = after('f');
    CHECK_INT(unwritten(&s), PAGES);
}

TEST(nothing_is_left_in_the_process)
{
    struct child c = start();
    int uffd = watch(&c);
    char path[64], link[64];
    for (int fd = 0; fd < 64; fd++) {
        (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)c.pid, fd);
        ssize_t n = readlink(path, link, sizeof(link) - 1);
        link[n > 0 ? n : 0] = '\0';
        CHECK(!strstr(link, "userfaultfd"));
    }
    fd_closep(&uffd);
    end(&c);
}

TEST(memory_that_somebody_else_watches_is_refused)
{
    struct err err = ERR_INIT;
    struct child c = start();
    int uffd = watch(&c), other = -1;
    CLEANUP(halt_endp) struct halt *h = NULL;
    CHECK_OK(halt_tree(c.pid, clock_now() + 10 * CLOCK_S, &h, &err));
    CHECK_OK(written_attach(h, c.pid, &other, &err));
    uint64_t start_of = (uint64_t)(uintptr_t)c.at;
    CHECK_RC(written_register(other, start_of, start_of + BYTES, &err), RC_CONFLICT);
    CHECK_OK(written_register(uffd, start_of, start_of + BYTES, &err));
    halt_endp(&h);
    fd_closep(&other);
    fd_closep(&uffd);
    end(&c);
}

TEST(an_address_space_that_is_gone_is_said)
{
    struct err err = ERR_INIT;
    struct child c = start();
    int uffd = watch(&c);
    uint64_t start_of = (uint64_t)(uintptr_t)c.at;
    end(&c);
    CHECK_RC(written_register(uffd, start_of, start_of + BYTES, &err), RC_NOT_FOUND);
    fd_closep(&uffd);
}

TEST(a_process_that_watches_its_own_memory_is_refused)
{
    struct err err = ERR_INIT;
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1);
    if (fd < 0)
        test_skip("kernel: no userfaultfd");
    CHECK_RC(written_check(getpid(), &err), RC_UNSUPPORTED);
    fd_closep(&fd);
    CHECK_OK(written_check(getpid(), &err));
}

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "engine/page_image.h"
#include "harness/test.h"
#include "store/memory.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAME "pages-1.img"
#define MOST 2600U /* pages: three segments */

/* A page says in each word who it is. */
static void fill(uint64_t *page, uint64_t number)
{
    for (size_t i = 0; i < MEMORY_PAGE / 8; i++)
        page[i] = number * 0x9E3779B97F4A7C15U ^ i;
}

static uint64_t *pages_from(uint64_t first, size_t n)
{
    void *p =
        mmap(NULL, n * MEMORY_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    for (size_t i = 0; i < n; i++)
        fill((uint64_t *)p + i * MEMORY_PAGE / 8, first + i);
    return p;
}

/* A process with our memory; of the first page it may not read what it has. */
static pid_t start(uint64_t *memory)
{
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)mprotect(memory, MEMORY_PAGE, PROT_NONE);
        (void)raise(SIGSTOP);
        _exit(0);
    }
    CHECK(waitpid(pid, NULL, WUNTRACED) == pid);
    return pid;
}

static void end(pid_t pid)
{
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
}

static int open_dir(void)
{
    int dir = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CHECK(dir >= 0);
    return dir;
}

/* CRIU's image: pages 1000000 and on. */
static void make_old(int dir, size_t n)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int fd = sys_openat(dir, NAME, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    uint64_t *pages = pages_from(1000000, n + 1);
    CHECK_OK(sys_write_all(fd, pages, n * MEMORY_PAGE, &err));
    (void)munmap(pages, (n + 1) * MEMORY_PAGE);
}

static void check_image(int dir, const uint64_t *numbers, size_t n)
{
    uint64_t want[MEMORY_PAGE / 8], got[MEMORY_PAGE / 8];
    CLEANUP(fd_closep) int fd = sys_openat(dir, NAME, O_RDONLY, 0);
    CHECK_INT(lseek(fd, 0, SEEK_END), (off_t)(n * MEMORY_PAGE));
    for (size_t i = 0; i < n; i++) {
        fill(want, numbers[i]);
        CHECK(pread(fd, got, MEMORY_PAGE, (off_t)(i * MEMORY_PAGE)) == (ssize_t)MEMORY_PAGE);
        if (memcmp(want, got, MEMORY_PAGE) != 0)
            test_fail(__FILE__, __LINE__, "page %zu is not number %ju", i, (uintmax_t)numbers[i]);
    }
}

/* Runs of all lengths, of the process and of the old image in turn. */
static void mix(struct page_image *image, pid_t pid, const uint64_t *memory, uint64_t *numbers,
                size_t most)
{
    size_t of_process = 0, of_image = 0;
    for (size_t i = 1; image->pages + i <= most; i = i * 5 % 311 + 1) {
        bool ours = i % 3 != 0;
        size_t *at = ours ? &of_process : &of_image;
        for (size_t k = 0; k < i; k++)
            numbers[image->pages + k] = (ours ? 1 : 1000000) + *at + k;
        page_image_add(
            image, ours ? pid : 0,
            ours ? (uint64_t)(uintptr_t)(memory + *at * MEMORY_PAGE / 8) : *at * MEMORY_PAGE, i);
        *at += i;
    }
}

TEST(pages_of_a_process_and_of_the_old_image_lie_where_they_belong)
{
    struct err err = ERR_INIT;
    CLEANUP(page_image_done) struct page_image image = {0};
    CLEANUP(fd_closep) int dir = open_dir();
    uint64_t numbers[MOST] = {0}, done = 0, len = 0, *memory = pages_from(1, MOST);
    struct digest digest, want;
    pid_t pid = start(memory);
    make_old(dir, MOST);
    mix(&image, pid, memory, numbers, MOST);
    CHECK(image.pages * MEMORY_PAGE > 2 * DIGEST_SEGMENT);
    CHECK_OK(page_image_write(&image, dir, NAME, &done, &digest, &err));
    CHECK_INT(done, image.pages * MEMORY_PAGE);
    check_image(dir, numbers, image.pages);
    CLEANUP(fd_closep) int fd = sys_openat(dir, NAME, O_RDONLY, 0);
    CHECK_OK(digest_file(fd, 1, NULL, &len, &want, &err));
    CHECK(digest_equal(&digest, &want));
    end(pid);
    (void)munmap(memory, MOST * MEMORY_PAGE);
}

TEST(writing_that_is_given_up_leaves_the_old_image)
{
    struct err err = ERR_INIT;
    CLEANUP(page_image_done) struct page_image image = {0};
    CLEANUP(cancel_done) struct cancel c = CANCEL_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    uint64_t old[200], done = 0;
    struct digest digest;
    for (size_t i = 0; i < 200; i++)
        old[i] = 1000000 + i;
    make_old(dir, 200);
    page_image_add(&image, 0, 0, 100);
    CHECK_OK(cancel_init(&c, &err));
    cancel_ask(&c);
    image.cancel = &c;
    CHECK_RC(page_image_write(&image, dir, NAME, &done, &digest, &err), RC_CANCELLED);
    CHECK_INT(done, 0);
    check_image(dir, old, 200);
    CHECK(faccessat(dir, "page-image.new", F_OK, 0) < 0);
}

TEST(a_failure_leaves_the_old_image)
{
    struct err err = ERR_INIT;
    CLEANUP(page_image_done) struct page_image image = {0};
    CLEANUP(fd_closep) int dir = open_dir();
    uint64_t numbers[200] = {0}, old[200], done = 0, *memory = pages_from(1, 200);
    struct digest digest;
    pid_t pid = start(memory);
    for (size_t i = 0; i < 200; i++)
        old[i] = 1000000 + i;
    make_old(dir, 200);
    mix(&image, pid, memory, numbers, 200);
    for (unsigned i = 0;; i++) {
        int fds = test_open_fds();
        fault_arm(i, FAULT_FAIL);
        enum rc rc = page_image_write(&image, dir, NAME, &done, &digest, &err);
        bool hit = fault_passed() > i;
        fault_disarm();
        CHECK_INT(test_open_fds(), fds);
        if (!hit) {
            CHECK_OK(rc);
            break;
        }
        CHECK_RC(rc, RC_IO);
        check_image(dir, old, 200);
        CHECK(faccessat(dir, "page-image.new", F_OK, 0) < 0);
    }
    check_image(dir, numbers, image.pages);
    make_old(dir, 1);
    CHECK_RC(page_image_write(&image, dir, NAME, &done, &digest, &err), RC_CORRUPT);
    check_image(dir, old, 1);
    make_old(dir, 200);
    end(pid);
    CHECK_RC(page_image_write(&image, dir, NAME, &done, &digest, &err), RC_NOT_FOUND);
    check_image(dir, old, 200);
    (void)munmap(memory, 200 * MEMORY_PAGE);
}

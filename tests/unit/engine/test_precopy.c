/* What was read ahead, against the memory itself: a tree that changes its address spaces without a
 * pause is read ahead, stopped for good, and every page that would be stored is compared with what
 * the process has at that moment.  CHREK_TEST_PRECOPY=<n> repeats it n times. */
#include "backend/drivers.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/halt.h"
#include "container/maps.h"
#include "container/task.h"
#include "container/written.h"
#include "engine/copier.h"
#include "engine/precopy.h"
#include "harness/test.h"
#include "store/page_reader.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCKS 40U
#define BLOCK_PAGES 128U /* 512 KiB: what CRIU would leave to us */
#define BLOCK_BYTES (BLOCK_PAGES * MEMORY_PAGE)
#define WRITERS 3U
#define STREAM(process) (MEMORY_LAZY | (uint32_t)(process))

/* ---- the tree ---- */

struct block {
    char *at;
    pthread_mutex_t lock;
};

static struct block blocks[BLOCKS];
static char *arena; /* blocks lie side by side, so that the kernel may join them */

static unsigned draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (unsigned)(*state >> 11);
}

static char *map_at(char *place)
{
    void *p = mmap(place, BLOCK_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | (place ? MAP_FIXED : 0), -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void write_some(char *at, uint64_t *state)
{
    for (unsigned i = draw(state) % 40; i > 0; i--) {
        uint64_t *page = (void *)(at + (draw(state) % BLOCK_PAGES) * MEMORY_PAGE);
        page[draw(state) % 512] = draw(state) % 5 ? draw(state) : 0;
    }
}

/* The block at another place, where something else was, side by side with others. */
static void move(struct block *b, uint64_t *state)
{
    char *spare = arena + (BLOCKS + draw(state) % 4) * BLOCK_BYTES;
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    char *home = b->at;
    if (pthread_mutex_trylock(&one) != 0)
        return;
    int how = MREMAP_MAYMOVE | MREMAP_FIXED | (draw(state) % 3 ? 0 : MREMAP_DONTUNMAP);
    if (mremap(b->at, BLOCK_BYTES, BLOCK_BYTES, how, spare) != MAP_FAILED) {
        if (draw(state) % 2)
            write_some(spare, state);
        (void)mremap(spare, BLOCK_BYTES, BLOCK_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, home);
    }
    (void)pthread_mutex_unlock(&one);
}

/* A block that another thread was changing when this child was made may not be there. */
static void child(uint64_t state)
{
    bool there[BLOCKS];
    for (size_t k = 0; k < BLOCKS; k++)
        there[k] = pthread_mutex_trylock(&blocks[k].lock) == 0;
    for (unsigned i = 0; i < 20; i++)
        for (size_t k = 0; k < BLOCKS; k += 3)
            if (there[k])
                write_some(blocks[k].at, &state);
    _exit(0);
}

static void fork_one(uint64_t *state)
{
    pid_t pid = fork();
    if (pid == 0)
        child(*state | 1);
    if (pid > 0 && draw(state) % 2)
        (void)waitpid(pid, NULL, 0);
    while (waitpid(-1, NULL, WNOHANG) > 0)
        continue;
}

static void change(struct block *b, uint64_t *state)
{
    size_t from = draw(state) % BLOCK_PAGES, n = 1 + draw(state) % (BLOCK_PAGES - from);
    char *at = b->at + from * MEMORY_PAGE;
    switch (draw(state) % 150) { /* mostly writes: memory that is new is read anew anyhow */
    case 0:
        (void)madvise(at, n * MEMORY_PAGE, MADV_DONTNEED);
        break;
    case 1:
        (void)map_at(b->at); /* new memory at the same place */
        break;
    case 2:
        (void)munmap(at, n * MEMORY_PAGE);
        (void)map_at(b->at);
        break;
    case 3:
        move(b, state);
        break;
    case 4:
        (void)mprotect(at, n * MEMORY_PAGE, PROT_READ);
        (void)mprotect(at, n * MEMORY_PAGE, PROT_READ | PROT_WRITE);
        break;
    case 5:
        (void)madvise(b->at, BLOCK_BYTES, MADV_HUGEPAGE);
        break;
    case 6:
        (void)madvise(at, n * MEMORY_PAGE, MADV_FREE);
        break;
    case 7:
        (void)madvise(at, n * MEMORY_PAGE, MADV_COLD);
        (void)madvise(at, n * MEMORY_PAGE, MADV_PAGEOUT);
        break;
    case 8:
        (void)*(volatile char *)at; /* a zero page, where nothing was */
        break;
    default:
        write_some(b->at, state);
    }
}

static void *churn(void *arg)
{
    uint64_t state = 88172645463325252U + (uintptr_t)arg;
    for (unsigned i = 0;; i++) {
        /* A few blocks at a time, so that others come to rest, and stay as they are. */
        struct block *b = &blocks[(i / 200 * 7 + draw(&state) % 6) % BLOCKS];
        (void)pthread_mutex_lock(&b->lock);
        change(b, &state);
        (void)pthread_mutex_unlock(&b->lock);
        if (i % 64 == 0 && (uintptr_t)arg % WRITERS == 0)
            fork_one(&state);
        if (i % 16 == 0)
            (void)usleep(200);
    }
    return NULL;
}

static _Noreturn void live(unsigned seed, int ready)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    arena = mmap(NULL, (BLOCKS + 4) * BLOCK_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(arena != MAP_FAILED);
    for (size_t i = 0; i < BLOCKS; i++) {
        (void)pthread_mutex_init(&blocks[i].lock, NULL);
        blocks[i].at = map_at(arena + i * BLOCK_BYTES);
        memset(blocks[i].at, (int)i + 1, BLOCK_BYTES);
    }
    for (uintptr_t i = 1; i < WRITERS; i++) {
        pthread_t t;
        CHECK(pthread_create(&t, NULL, churn, (void *)(i + (uintptr_t)seed * WRITERS)) ==
              0); // NOLINT
    }
    CHECK(write(ready, "x", 1) == 1);
    (void)churn((void *)((uintptr_t)seed * WRITERS)); // NOLINT(performance-no-int-to-ptr)
    _exit(1);
}

static pid_t start(unsigned seed)
{
    int p[2];
    char byte = 0;
    CHECK(pipe(p) == 0);
    pid_t pid = fork();
    if (pid == 0)
        live(seed, p[1]);
    (void)close(p[1]);
    CHECK(read(p[0], &byte, 1) == 1);
    (void)close(p[0]);
    return pid;
}

/* ---- the comparison ---- */

struct space {
    pid_t pid;
    struct page_input *input;
    uint64_t *addresses; /* of each page of the stream */
    size_t n;
    uint64_t referred;
};

static enum rc take_address(void *arg, const struct pages_run *run, struct err *err)
{
    struct space *s = arg;
    (void)err;
    s->addresses = mem_realloc(s->addresses, (s->n + run->pages + 1) * sizeof(uint64_t));
    for (uint64_t i = 0; i < run->pages; i++)
        s->addresses[s->n++] = run->address + i * MEMORY_PAGE;
    return RC_OK;
}

static void list_pages(struct precopy *pre, struct space *s)
{
    struct err err = ERR_INIT;
    CLEANUP(maps_done) struct maps maps = {0};
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    int fd = -1;
    CHECK_OK(task_open_proc("/proc", &proc, &err));
    CHECK_OK(task_open(proc, s->pid, &task, &err));
    CHECK_OK(maps_read(task, false, &maps, &err));
    CHECK_OK(pages_open(s->pid, &fd, &err));
    for (size_t i = 0; i < maps.n; i++) {
        const struct map *m = &maps.list[i];
        bool wanted =
            (m->flags & (MAPS_READ | MAPS_WRITE | MAPS_SHARES)) == (MAPS_READ | MAPS_WRITE) &&
            m->ino == 0 && !m->name[0] && m->end - m->start >= 256 << 10;
        if (wanted)
            CHECK_OK(precopy_scan(pre, s->pid, fd, m->start, m->end, take_address, s, &err));
    }
    fd_closep(&fd);
}

static void store_pages(struct precopy *pre, struct page_writer *w, struct space *s)
{
    struct err err = ERR_INIT;
    CLEANUP(copier_done) struct copier c = {0};
    const struct known *known = precopy_confirmed(pre, s->pid);
    CHECK_OK(page_writer_input(w, STREAM(s->pid), s->n, &s->input, &err));
    for (size_t i = 0; i < s->n; i++) {
        struct known_run r;
        if (known_find(known, s->addresses[i], 1, &r)) {
            page_writer_refer(w, s->input, i, 1, r.draft, r.at);
            s->referred++;
        } else {
            copier_add(&c, s->pid, s->addresses[i], 1, s->input, i);
        }
    }
    CHECK_OK(copier_run(&c, w, false, &err));
}

/* Every page as it is stored, against what the process has: it still stands still. */
static void compare(struct backend *b, const struct memory *m, const struct space *s)
{
    struct err err = ERR_INIT;
    CLEANUP(page_reader_freep) struct page_reader *r = NULL;
    CLEANUP(mem_freep) char *stored = mem_alloc((s->n + 1) * MEMORY_PAGE);
    CHECK_OK(page_reader_open(b, NULL, m, &r, &err));
    CHECK_OK(page_reader_pages(r, STREAM(s->pid), 0, s->n, stored, &err));
    for (size_t i = 0; i < s->n; i++) {
        char now[MEMORY_PAGE];
        struct iovec to = {now, MEMORY_PAGE};
        // NOLINTNEXTLINE(performance-no-int-to-ptr): an address of another process
        struct iovec from = {(void *)(uintptr_t)s->addresses[i], MEMORY_PAGE};
        CHECK(process_vm_readv(s->pid, &to, 1, &from, 1, 0) == (ssize_t)MEMORY_PAGE);
        if (memcmp(now, stored + i * MEMORY_PAGE, MEMORY_PAGE) != 0)
            test_fail(__FILE__, __LINE__, "stale page at %#jx of process %d",
                      (uintmax_t)s->addresses[i], (int)s->pid);
    }
}

struct sums {
    uint64_t pages, referred;
    unsigned without; /* times in which nothing could be read ahead */
};

static void check_frozen(struct precopy *pre, struct backend *b, struct page_writer *w, pid_t root,
                         struct sums *sums)
{
    struct err err = ERR_INIT;
    CLEANUP(halt_endp) struct halt *h = NULL;
    CLEANUP(memory_done) struct memory m = {0};
    struct page_writer_totals totals;
    const pid_t *pids = NULL;
    CHECK_OK(halt_tree(root, clock_now() + 10 * CLOCK_S, &h, &err));
    size_t n = halt_processes(h, &pids);
    CLEANUP(mem_freep) struct space *spaces = mem_zalloc(n * sizeof(*spaces));
    for (size_t i = 0; i < n; i++) {
        spaces[i].pid = pids[i];
        list_pages(pre, &spaces[i]);
        store_pages(pre, w, &spaces[i]);
    }
    CHECK_OK(page_writer_finish(w, &m, &totals, &err));
    for (size_t i = 0; i < n; i++) {
        compare(b, &m, &spaces[i]);
        sums->pages += spaces[i].n;
        sums->referred += spaces[i].referred;
        mem_freep(&spaces[i].addresses);
    }
    CHECK_INT(totals.pages, memory_totals(&m).pages);
}

static void check_once(unsigned seed, struct sums *sums)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = NULL;
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    CLEANUP(precopy_freep) struct precopy *pre = NULL;
    CHECK_OK(backend_mem_open(&b, &err));
    struct page_writer_options o = {.backend = b,
                                    .codec = COMPRESS_LZ4,
                                    .threads = 2,
                                    .buffer_bytes = (size_t)16 << 20,
                                    .table_max = 1 << 16};
    pid_t pid = start(seed);
    CHECK_OK(page_writer_open(&o, &w, &err));
    enum rc rc = precopy_open(pid, w, &pre, &err);
    uint64_t pages = 0;
    for (unsigned round = 0; !rc && round < 1 + seed % 6; round++) {
        rc = precopy_round(pre, &pages, &err);
        (void)usleep((useconds_t)(seed * 104729 % 9000));
    }
    CHECK(rc == RC_OK || precopy_can_do_without(rc));
    if (rc) {
        sums->without++;
    } else {
        (void)usleep((useconds_t)(seed * 7919 % 20000));
        check_frozen(pre, b, w, pid, sums);
    }
    (void)kill(pid, SIGKILL);
    CHECK(waitpid(pid, NULL, 0) == pid);
}

/* Protect a part of a mapping until told to go on, then move all of it. */
static _Noreturn void protect_for_a_moment(int told, int tell)
{
    char c = 0;
    char *at = map_at(NULL), *part = at + BLOCK_BYTES / 2, *to = map_at(NULL);
    if (!at || !to)
        _exit(1);
    memset(at, 1, BLOCK_BYTES);
    if (mprotect(part, MEMORY_PAGE, PROT_READ) < 0 || write(tell, &c, 1) != 1 ||
        read(told, &c, 1) != 1 || mprotect(part, MEMORY_PAGE, PROT_READ | PROT_WRITE) < 0)
        _exit(2);
    _exit(mremap(at, BLOCK_BYTES, BLOCK_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to ? 0 : 3);
}

TEST(what_was_one_mapping_can_still_be_moved)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = NULL;
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    CLEANUP(precopy_freep) struct precopy *pre = NULL;
    struct page_writer_options o = {.codec = COMPRESS_LZ4,
                                    .threads = 1,
                                    .buffer_bytes = (size_t)16 << 20,
                                    .table_max = 1 << 16};
    uint64_t pages = 0;
    int go[2], ready[2], status = -1;
    char c = 0;
    if (!written_can() || !pages_can_scan())
        test_skip("kernel: cannot tell what a program writes");
    CHECK_OK(backend_mem_open(&b, &err));
    o.backend = b;
    CHECK(pipe2(go, O_CLOEXEC) == 0 && pipe2(ready, O_CLOEXEC) == 0);
    pid_t pid = fork();
    if (pid == 0)
        protect_for_a_moment(go[0], ready[1]);
    CHECK(read(ready[0], &c, 1) == 1);
    CHECK_OK(page_writer_open(&o, &w, &err));
    CHECK_OK(precopy_open(pid, w, &pre, &err));
    CHECK_OK(precopy_round(pre, &pages, &err));
    CHECK(pages >= BLOCK_PAGES / 2 - 1);
    CHECK(write(go[1], &c, 1) == 1);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_INT(status, 0);
    for (int i = 0; i < 2; i++)
        (void)close(go[i]), (void)close(ready[i]);
}

TEST(no_page_that_was_read_ahead_is_stale)
{
    (void)alarm(170); /* a tree that never rests, and little of a machine for all of it */
    const char *wanted = getenv("CHREK_TEST_PRECOPY");
    unsigned n = wanted ? (unsigned)strtoul(wanted, NULL, 10) : 5;
    if (TEST_EXTRA_THREAD) /* which does not let a tree of threads and forks do what it wants */
        test_skip("machine: the thread sanitizer follows no memory that is moved");
    struct sums sums = {0};
    if (!written_can() || !pages_can_scan())
        test_skip("kernel: cannot tell what a program writes");
    for (unsigned i = 0; i < n; i++)
        check_once(i + 1, &sums);
    CHECK(sums.without <= n / 4);
    CHECK(sums.referred > sums.pages / 20); /* else nothing was shown */
    if (wanted)
        (void)fprintf(stderr, "%ju pages, %ju read ahead, %u times without\n",
                      (uintmax_t)sums.pages, (uintmax_t)sums.referred, sums.without);
}

/* A process tree that changes its address space all the time, and knows what every byte must be.
 *
 * churn MEGABYTES STATE [rest|on]: fills memory, prints "ready" and waits until the file STATE is
 * there; then, at once and without a pause, in several threads: checks pages against what they must
 * hold, rewrites some, drops some with MADV_DONTNEED, unmaps and maps anew, moves with mremap,
 * changes protections, makes threads, and forks children that check and change their copy.  "round
 * N ok" for each round, at the end a check of everything and "all ok", or "bad: WHAT" and exit
 * status 1. With `rest` there are no rounds, with `on` they begin at once and end when STATE is
 * there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define BLOCK ((size_t)64) /* pages that are mapped, moved and unmapped together */
#define WORKERS 3
#define ROUNDS 12

/* A page holds its tag in every word, mixed with the word's place; a page of tag 0 is zero. */
struct block {
    char *at; /* NULL: unmapped */
    uint64_t tag[BLOCK];
};

static struct block *blocks;
static size_t n_blocks;
static uint64_t next_tag = 1;

static void bad(const char *what, size_t block, size_t page)
{
    printf("bad: %s (block %zu page %zu pid %d: %s)\n", what, block, page, getpid(),
           strerror(errno));
    fflush(stdout);
    kill(0, SIGKILL);
    _exit(1);
}

static uint64_t word_of(uint64_t tag, size_t i)
{
    return tag ? tag * 0x9E3779B97F4A7C15U ^ i : 0;
}

static void write_page(struct block *b, size_t page)
{
    uint64_t tag = __atomic_fetch_add(&next_tag, 1, __ATOMIC_RELAXED);
    uint64_t *words = (uint64_t *)(b->at + page * PAGE);
    tag = tag % 7 == 0 ? 0 : tag; /* some are zero */
    for (size_t i = 0; i < PAGE / 8; i++)
        words[i] = word_of(tag, i);
    b->tag[page] = tag;
}

static void check_page(const struct block *b, size_t page)
{
    const uint64_t *words = (const uint64_t *)(b->at + page * PAGE);
    for (size_t i = 0; i < PAGE / 8; i++)
        if (words[i] != word_of(b->tag[page], i)) {
            printf("at %p word %zu is %#jx, not %#jx\n", (void *)b->at, i, (uintmax_t)words[i],
                   (uintmax_t)word_of(b->tag[page], i));
            bad("a word is wrong", (size_t)(b - blocks), page);
        }
}

static void check_block(const struct block *b)
{
    for (size_t i = 0; b->at && i < BLOCK; i++)
        check_page(b, i);
}

static char *map_block(void)
{
    char *p = mmap(NULL, BLOCK * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        bad("mmap", 0, 0);
    return p;
}

static void move_block(struct block *b)
{
    char *to = map_block(); /* a place of its own, which mremap() replaces */
    if (mremap(b->at, BLOCK * PAGE, BLOCK * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
        bad("mremap", (size_t)(b - blocks), 0);
    b->at = to;
}

static void drop_pages(struct block *b, size_t first, size_t n)
{
    n = first + n > BLOCK ? BLOCK - first : n;
    if (madvise(b->at + first * PAGE, n * PAGE, MADV_DONTNEED) < 0)
        bad("madvise", (size_t)(b - blocks), first);
    memset(&b->tag[first], 0, n * sizeof(b->tag[0]));
}

static void unmap_block(struct block *b)
{
    if (munmap(b->at, BLOCK * PAGE) < 0)
        bad("munmap", (size_t)(b - blocks), 0);
    b->at = map_block();
    memset(b->tag, 0, sizeof(b->tag));
    write_page(b, 5);
}

static void protect_some(struct block *b, size_t first)
{
    if (mprotect(b->at + first * PAGE, PAGE, PROT_READ) < 0)
        bad("mprotect", (size_t)(b - blocks), first);
    check_page(b, first);
    if (mprotect(b->at + first * PAGE, PAGE, PROT_READ | PROT_WRITE) < 0)
        bad("mprotect", (size_t)(b - blocks), first);
}

/* A pipe fills the page from inside the kernel. */
static void through_kernel(struct block *b, size_t page)
{
    int p[2];
    if (pipe(p) < 0 || write(p[1], b->at + page * PAGE, 64) != 64)
        bad("write", (size_t)(b - blocks), page);
    char back[64];
    if (read(p[0], back, 64) != 64 || memcmp(back, b->at + page * PAGE, 64) != 0)
        bad("what the kernel read", (size_t)(b - blocks), page);
    close(p[0]);
    close(p[1]);
}

static void step(struct block *b, unsigned *seed)
{
    unsigned what = (unsigned)rand_r(seed) % 16, page = (unsigned)rand_r(seed) % BLOCK;
    switch (what) {
    case 0:
        move_block(b);
        break;
    case 1:
        drop_pages(b, page, 1 + (unsigned)rand_r(seed) % 20);
        break;
    case 2:
        unmap_block(b);
        break;
    case 3:
        protect_some(b, page);
        break;
    case 4:
        through_kernel(b, page);
        break;
    case 5:
        check_block(b);
        break;
    case 6:
    case 7:
    case 8:
        write_page(b, page);
        break;
    default:
        check_page(b, page);
    }
    check_page(b, (page + 13) % BLOCK);
}

static void *short_thread(void *arg)
{
    check_block(arg);
    return NULL;
}

struct share {
    size_t first, n;
    unsigned seed;
};

/* A thread has blocks of its own, so that nobody races for what a page must hold. */
static void *work(void *arg)
{
    struct share *s = arg;
    for (unsigned i = 0; i < s->n * 2; i++) {
        struct block *b = &blocks[s->first + (unsigned)rand_r(&s->seed) % s->n];
        step(b, &s->seed);
        pthread_t t;
        if (i % 64 == 0 && pthread_create(&t, NULL, short_thread, b) == 0)
            pthread_join(t, NULL);
    }
    return NULL;
}

static void check_all(void)
{
    for (size_t i = 0; i < n_blocks; i++)
        check_block(&blocks[i]);
}

/* A child has its own copy, and a grandchild, and both change it. */
static pid_t fork_child(unsigned round)
{
    pid_t pid = fork();
    if (pid)
        return pid;
    unsigned seed = round * 31 + 7;
    for (unsigned i = 0; i < n_blocks; i++)
        step(&blocks[(unsigned)rand_r(&seed) % n_blocks], &seed);
    if (round % 4 == 0 && fork() == 0) {
        for (unsigned i = 0; i < n_blocks / 2; i++)
            step(&blocks[(unsigned)rand_r(&seed) % n_blocks], &seed);
        if (round % 8 == 0)
            check_all();
        _exit(0);
    }
    if (round % 8 == 0)
        check_all();
    while (wait(NULL) > 0 || errno == EINTR)
        continue;
    _exit(0);
}

static void one_round(unsigned round)
{
    pthread_t t[WORKERS];
    struct share shares[WORKERS];
    int status = 0;
    pid_t child = fork_child(round);
    for (unsigned i = 0; i < WORKERS; i++) {
        size_t first = i * n_blocks / WORKERS, end = (i + 1) * n_blocks / WORKERS;
        shares[i] = (struct share){first, end - first, round * 17 + i};
        if (pthread_create(&t[i], NULL, work, &shares[i]) != 0)
            bad("pthread_create", 0, 0);
    }
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(t[i], NULL);
    if (waitpid(child, &status, 0) != child || status != 0)
        bad("a child", 0, 0);
    printf("round %u ok\n", round);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    n_blocks = (size_t)strtoull(argv[1], NULL, 10) * 1024 * 1024 / (BLOCK * PAGE);
    blocks = calloc(n_blocks, sizeof(*blocks));
    /* Most in one mapping, so that blocks are parts of mappings. */
    char *all = mmap(NULL, n_blocks * BLOCK * PAGE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!blocks || all == MAP_FAILED)
        return 1;
    setpgid(0, 0);
    for (size_t i = 0; i < n_blocks; i++) {
        blocks[i].at = all + i * BLOCK * PAGE;
        for (size_t k = 0; k < BLOCK; k++)
            write_page(&blocks[i], k);
    }
    printf("ready\n");
    fflush(stdout);
    int on = argc > 3 && strcmp(argv[3], "on") == 0;
    for (unsigned round = 0; on && access(argv[2], F_OK) != 0; round++)
        one_round(round);
    while (access(argv[2], F_OK) != 0)
        nanosleep(&(struct timespec){0, 2000000}, NULL);
    for (unsigned round = 0; argc == 3 && round < ROUNDS; round++)
        one_round(round);
    check_all();
    printf("all ok\n");
    fflush(stdout);
    return 0;
}

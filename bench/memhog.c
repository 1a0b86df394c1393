/* A process with much memory, for measuring.
 *
 * memhog MEGABYTES STATE-FILE [RATE [huge]]: fills memory with mixed content, then counts a
 * heartbeat in the state file (shared mapping) every 0.2 ms.  A request number written there is
 * answered with a checksum of all memory; one with bit 63 with a checksum of 5 % of it, in pieces
 * of 32 KiB all over the place; one with bit 62 when it has written to 5 % of it, in pieces of
 * 32 KiB. Each copy of a process that is restored more than once answers, and prints "answer
 * CHECKSUM". The longest time between two beats is kept there; set it to 0 to begin anew.  With
 * RATE it writes to so many MB of pages a second, one after another; with `huge` it asks for huge
 * pages. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct state { /* little-endian u64s; bench/run reads it */
    volatile uint64_t beats, longest_gap_ns, request, answer, checksum;
};

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static void fill(uint64_t *memory, size_t words)
{
    uint64_t x = 88172645463325252U;
    for (size_t i = 0; i < words; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        /* a quarter each: random, small numbers, repeating text, zero */
        size_t kind = (i >> 9) & 3;
        memory[i] = kind == 0   ? x
                    : kind == 1 ? (x & 0xff)
                    : kind == 2 ? 0x6465646f6320656eU + (i >> 9)
                                : 0;
        if (kind == 3 && (i & 511) == 0)
            memory[i] = i; /* no page is all zero: each must be saved */
    }
}

static uint64_t checksum(const uint64_t *memory, size_t words)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < words; i++)
        sum = sum * 31 + memory[i];
    return sum;
}

static uint64_t sample(const uint64_t *memory, size_t words)
{
    const size_t piece = 32768 / sizeof(*memory);
    uint64_t sum = 0, x = 88172645463325252U;
    for (size_t i = 0; i < words / piece / 20; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        sum = sum * 31 + checksum(memory + x % (words / piece) * piece, piece);
    }
    return sum;
}

static void change(uint64_t *memory, size_t words, uint64_t request)
{
    const size_t page = 4096 / sizeof(*memory);
    for (size_t i = 7; i < words; i += 160 * page)
        for (size_t k = 0; k < 8; k++)
            memory[i + k * page] ^= request;
}

/* What is due at this time, after a stop at most a tenth of a second's. */
static void write_pages(uint64_t *memory, size_t pages, uint64_t rate, uint64_t ns)
{
    static uint64_t next, owed;
    owed += (ns > 100000000 ? 100000000 : ns) * rate / 1000;
    for (; owed >= 4096; owed -= 4096, next++)
        memory[next % pages * 512 + 7] += next;
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 5)
        return 2;
    uint64_t rate = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    size_t bytes = (size_t)strtoull(argv[1], NULL, 10) << 20;
    int fd = open(argv[2], O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, 4096) < 0)
        return 1;
    struct state *s = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint64_t *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED || memory == MAP_FAILED)
        return 1;
    if (argc == 5 && madvise(memory, bytes, MADV_HUGEPAGE) < 0)
        return 1;
    fill(memory, bytes / 8);
    uint64_t answered = s->answer; /* of this copy's own: others may share the file */
    for (uint64_t last = now();;) {
        struct timespec pause = {0, 200000};
        nanosleep(&pause, NULL);
        uint64_t t = now();
        if (t - last > s->longest_gap_ns)
            s->longest_gap_ns = t - last;
        write_pages(memory, bytes / 4096, rate, t - last);
        s->beats++;
        if (s->request != answered) {
            uint64_t request = s->request;
            if (request >> 62 & 1)
                change(memory, bytes / 8, request);
            s->checksum = (request >> 63 ? sample : checksum)(memory, bytes / 8);
            s->answer = answered = request;
            printf("answer %" PRIu64 "\n", s->checksum);
            fflush(stdout);
            t = now();
        }
        last = t;
    }
}

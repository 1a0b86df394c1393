/* Processes that share memory copy-on-write since they were forked.
 *
 * cowtree MEGABYTES STATE: fills memory with what does not compress, forks four children, prints
 * "ready", then "again" every 50 ms; once the file STATE is there all five check every byte, and
 * "all ok" or "bad" is printed. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHILDREN 4

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 31)) * 0x9E3779B97F4A7C15U;
    return x ^ (x >> 29);
}

static int check(const uint64_t *memory, size_t words)
{
    for (size_t i = 0; i < words; i++)
        if (memory[i] != mix(i + 1))
            return 1;
    return 0;
}

static void await(const char *state, int talk)
{
    while (access(state, F_OK) != 0) {
        nanosleep(&(struct timespec){0, 50000000}, NULL);
        if (talk) {
            printf("again\n");
            fflush(stdout);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    size_t bytes = (size_t)strtoull(argv[1], NULL, 10) << 20, words = bytes / 8;
    uint64_t *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    for (size_t i = 0; i < words; i++)
        memory[i] = mix(i + 1);
    for (int i = 0; i < CHILDREN; i++)
        if (fork() == 0) {
            await(argv[2], 0);
            _exit(check(memory, words));
        }
    printf("ready\n");
    fflush(stdout);
    await(argv[2], 1);
    int bad = check(memory, words), status = 0;
    while (wait(&status) > 0)
        bad |= status;
    printf(bad ? "bad\n" : "all ok\n");
    return bad != 0;
}

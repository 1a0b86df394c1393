/* What memory this machine can give: the limits beside which bench/restore-modes puts its figures.
 *
 * limits MEGABYTES: GB/s, one thread and one for each CPU, of a copy between pages that are there,
 * of the first touch of pages of 4 KiB and of huge ones, and of writing fresh pages of another
 * process, which is what a full restore does.  Each is the best of three. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 64
#define PIECE ((size_t)256 << 10)

static size_t bytes;
static char *from, *to;
static pid_t other;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static char *fresh(int huge)
{
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        exit(1);
    (void)madvise(p, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    return p;
}

static void copy(size_t at, size_t n)
{
    memcpy(to + at, from + at, n);
}

static void touch(size_t at, size_t n)
{
    for (size_t i = 0; i < n; i += 4096)
        ((volatile char *)to)[at + i] = 1;
}

static void write_other(size_t at, size_t n)
{
    for (size_t i = 0; i < n; i += PIECE) {
        struct iovec a = {from, PIECE}, b = {to + at + i, PIECE};
        if (process_vm_writev(other, &a, 1, &b, 1, 0) != (ssize_t)PIECE)
            exit(1);
    }
}

struct part {
    void (*work)(size_t, size_t);
    size_t at, n;
};

static void *run_part(void *arg)
{
    const struct part *p = arg;
    p->work(p->at, p->n);
    return NULL;
}

static double run(void (*work)(size_t, size_t), int threads)
{
    pthread_t t[THREADS_MAX];
    struct part p[THREADS_MAX];
    double begun = now();
    for (int i = 0; i < threads; i++) {
        size_t share = bytes / (size_t)threads / PIECE * PIECE;
        p[i] = (struct part){work, share * (size_t)i, share};
        if (pthread_create(&t[i], NULL, run_part, &p[i]))
            exit(1);
    }
    for (int i = 0; i < threads; i++)
        pthread_join(t[i], NULL);
    return (double)bytes / (now() - begun) / 1e9;
}

/* into: 0 pages that are there, 1 fresh ones, 2 fresh huge ones */
static double best(void (*work)(size_t, size_t), int threads, int into, int of_other)
{
    double most = 0;
    for (int i = 0; i < 3; i++) {
        to = fresh(into == 2);
        if (into == 0)
            memset(to, 1, bytes);
        other = of_other ? fork() : 0;
        if (of_other && other == 0)
            for (;;)
                pause();
        double speed = run(work, threads);
        most = speed > most ? speed : most;
        if (of_other) {
            kill(other, SIGKILL);
            waitpid(other, NULL, 0);
        }
        munmap(to, bytes);
    }
    return most;
}

int main(int argc, char **argv)
{
    int cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
    cpus = cpus > THREADS_MAX ? THREADS_MAX : cpus;
    bytes = (size_t)(argc == 2 ? strtoull(argv[1], NULL, 10) : 512) << 20;
    from = fresh(0);
    memset(from, 2, bytes);
    const struct {
        const char *name;
        void (*work)(size_t, size_t);
        int into, of_other;
    } all[] = {{"copy", copy, 0, 0},
               {"touch", touch, 1, 0},
               {"touch_huge", touch, 2, 0},
               {"write_other", write_other, 1, 1},
               {"write_other_huge", write_other, 2, 1}};
    printf("{");
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        printf("%s\"%s\": [%.2f, %.2f]", i ? ", " : "", all[i].name,
               best(all[i].work, 1, all[i].into, all[i].of_other),
               best(all[i].work, cpus, all[i].into, all[i].of_other));
    printf("}\n");
    return 0;
}

#include "target.h"

#include "harness/test.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define TARGETS 8
#define PAUSE_MS 300

static struct {
    pid_t pid;
    int to, from;
} targets[TARGETS];
static int n_targets;

static void *symbol(void *lib, const char *name)
{
    void *f = dlsym(lib, name);
    if (!f)
        _exit(3);
    return f;
}

/* Each byte that comes is a step, answered by the sum of its memory. */
static _Noreturn void compute(unsigned words, int in, int out)
{
    void *lib = dlopen("libcuda.so.1", RTLD_NOW), *context = NULL;
    if (!lib)
        _exit(3);
    int (*init)(unsigned) = symbol(lib, "cuInit");
    int (*retain)(void **, int) = symbol(lib, "cuDevicePrimaryCtxRetain");
    int (*use)(void *) = symbol(lib, "cuCtxSetCurrent");
    int (*alloc)(uint64_t *, size_t) = symbol(lib, "cuMemAlloc_v2");
    int (*put)(uint64_t, const void *, size_t) = symbol(lib, "cuMemcpyHtoD_v2");
    int (*get)(void *, uint64_t, size_t) = symbol(lib, "cuMemcpyDtoH_v2");
    uint32_t *x = calloc(words, sizeof(*x)), sum = 1;
    uint64_t memory = 0;
    if (!x || init(0) || retain(&context, 0) || use(context) || alloc(&memory, words * 4UL) ||
        put(memory, x, words * 4UL) || write(out, &sum, sizeof(sum)) < 0)
        _exit(4);
    for (char c; read(in, &c, 1) == 1;) {
        sum = 0;
        if (get(x, memory, words * 4UL))
            _exit(5);
        for (unsigned i = 0; i < words; i++)
            sum += x[i] = x[i] * 5 + i + 1;
        if (put(memory, x, words * 4UL) || write(out, &sum, sizeof(sum)) < 0)
            _exit(6);
    }
    _exit(0);
}

static unsigned answer(int i, int ms)
{
    struct pollfd p = {.fd = targets[i].from, .events = POLLIN};
    unsigned sum = 0;
    if (poll(&p, 1, ms) != 1)
        return 0;
    CHECK(read(targets[i].from, &sum, sizeof(sum)) == sizeof(sum));
    return sum;
}

pid_t target_start(unsigned words, const char *env)
{
    int to[2], from[2];
    CHECK(n_targets < TARGETS && pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (env && putenv((char *)(uintptr_t)env))
            _exit(3);
        compute(words, to[0], from[1]);
    }
    (void)close(to[0]);
    (void)close(from[1]);
    targets[n_targets].pid = pid;
    targets[n_targets].to = to[1];
    targets[n_targets].from = from[0];
    CHECK(answer(n_targets++, 30000) == 1);
    return pid;
}

static unsigned step(pid_t pid, int ms)
{
    for (int i = 0; i < n_targets; i++)
        if (targets[i].pid == pid) {
            unsigned late = answer(i, 0); /* of a step that was asked for while it was locked */
            if (late)
                return late;
            CHECK(write(targets[i].to, "x", 1) == 1);
            return answer(i, ms);
        }
    test_fail(__FILE__, __LINE__, "no target %d", (int)pid);
}

unsigned target_step(pid_t pid)
{
    return step(pid, PAUSE_MS);
}

unsigned target_step_wait(pid_t pid)
{
    return step(pid, 30000);
}

void target_end(pid_t pid)
{
    for (int i = 0; i < n_targets; i++)
        if (targets[i].pid == pid) {
            (void)close(targets[i].to);
            (void)close(targets[i].from);
            (void)kill(pid, SIGKILL);
            (void)waitpid(pid, NULL, 0);
            targets[i].pid = 0;
        }
}

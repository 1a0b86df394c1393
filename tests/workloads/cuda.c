/* A program that computes on a GPU: each line that it reads makes it take a step and print the
 * digest of its memory on the GPU.  With the CUDA driver alone, no toolkit:
 *
 *   cc cuda.c -o cuda -l:libcuda.so.1
 *   cuda [MIB [GPUS]]     MIB of memory on each of the first GPUS GPUs
 *
 * The kernel is PTX for any model since 2014.  The fake driver of the tests knows it by its name.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GPUS_MAX 8

/* The driver's own names. */
// NOLINTBEGIN(readability-identifier-naming)
int cuInit(unsigned flags);
int cuDeviceGet(int *out, int ordinal);
int cuDeviceGetUuid(unsigned char *out, int device);
int cuDevicePrimaryCtxRetain(void **out, int device);
int cuCtxSetCurrent(void *context);
int cuMemAlloc_v2(uint64_t *out, size_t bytes);
int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes);
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes);
int cuModuleLoadData(void **out, const void *image);
int cuModuleGetFunction(void **out, void *module, const char *name);
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void *stream, void **args, void **extra);
int cuCtxSynchronize(void);
// NOLINTEND(readability-identifier-naming)

/* x[i] = x[i] * 1664525 + 1013904223 + i */
static const char ptx[] = ".version 6.0\n.target sm_50\n.address_size 64\n"
                          ".visible .entry chrek_step(.param .u64 p, .param .u32 n) {\n"
                          ".reg .pred %q; .reg .b32 %r<8>; .reg .b64 %d<4>;\n"
                          "ld.param.u64 %d0, [p]; ld.param.u32 %r0, [n];\n"
                          "cvta.to.global.u64 %d0, %d0;\n"
                          "mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x;\n"
                          "mad.lo.u32 %r4, %r1, %r2, %r3;\n"
                          "setp.ge.u32 %q, %r4, %r0; @%q bra DONE;\n"
                          "mul.wide.u32 %d1, %r4, 4; add.u64 %d2, %d0, %d1;\n"
                          "ld.global.u32 %r5, [%d2];\n"
                          "mad.lo.u32 %r5, %r5, 1664525, 1013904223; add.u32 %r5, %r5, %r4;\n"
                          "st.global.u32 [%d2], %r5;\n"
                          "DONE: ret; }\n";

static struct gpu {
    int device;
    void *context, *kernel;
    uint64_t memory;
} gpus[GPUS_MAX];
static size_t n_words;
static uint32_t *copy;

static void must(int code, const char *what)
{
    if (code) {
        fprintf(stderr, "%s: error %d\n", what, code);
        exit(1);
    }
}

static void set_up(struct gpu *g, int ordinal)
{
    void *module = NULL;
    must(cuDeviceGet(&g->device, ordinal), "cuDeviceGet");
    must(cuDevicePrimaryCtxRetain(&g->context, g->device), "cuDevicePrimaryCtxRetain");
    must(cuCtxSetCurrent(g->context), "cuCtxSetCurrent");
    must(cuModuleLoadData(&module, ptx), "cuModuleLoadData");
    must(cuModuleGetFunction(&g->kernel, module, "chrek_step"), "cuModuleGetFunction");
    must(cuMemAlloc_v2(&g->memory, n_words * 4), "cuMemAlloc");
    for (size_t i = 0; i < n_words; i++)
        copy[i] = (uint32_t)(i * 2654435761U) ^ (uint32_t)ordinal;
    must(cuMemcpyHtoD_v2(g->memory, copy, n_words * 4), "cuMemcpyHtoD");
    memset(copy, 0, n_words * 4); /* the host keeps nothing of it */
}

static void step(const struct gpu *g)
{
    uint64_t memory = g->memory;
    uint32_t n = (uint32_t)n_words;
    void *args[] = {&memory, &n};
    must(cuCtxSetCurrent(g->context), "cuCtxSetCurrent");
    must(cuLaunchKernel(g->kernel, (n + 255) / 256, 1, 1, 256, 1, 1, 0, NULL, args, NULL),
         "cuLaunchKernel");
    must(cuCtxSynchronize(), "cuCtxSynchronize");
}

static uint64_t digest(const struct gpu *g)
{
    uint64_t d = 14695981039346656037ULL;
    must(cuCtxSetCurrent(g->context), "cuCtxSetCurrent");
    must(cuMemcpyDtoH_v2(copy, g->memory, n_words * 4), "cuMemcpyDtoH");
    for (size_t i = 0; i < n_words; i++)
        d = (d ^ copy[i]) * 1099511628211ULL;
    memset(copy, 0, n_words * 4);
    return d;
}

int main(int argc, char **argv)
{
    size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 4;
    int n_gpus = argc > 2 ? (int)strtoul(argv[2], NULL, 10) : 1;
    char line[64];
    n_words = mib * 262144;
    copy = malloc(n_words * 4);
    if (!copy || !n_words || n_gpus < 1 || n_gpus > GPUS_MAX)
        return 2;
    must(cuInit(0), "cuInit");
    for (int i = 0; i < n_gpus; i++)
        set_up(&gpus[i], i);
    printf("ready %d\n", (int)getpid());
    (void)fflush(stdout);
    for (unsigned long n = 1; fgets(line, sizeof(line), stdin); n++) {
        printf("step %lu", n);
        for (int i = 0; i < n_gpus; i++) {
            unsigned char uuid[16] = {0};
            step(&gpus[i]);
            must(cuDeviceGetUuid(uuid, gpus[i].device), "cuDeviceGetUuid");
            printf(" %016llx on %02x%02x%02x%02x", (unsigned long long)digest(&gpus[i]), uuid[0],
                   uuid[1], uuid[2], uuid[3]);
        }
        printf("\n");
        (void)fflush(stdout);
    }
    return 0;
}

/* A libcuda.so.1 with the driver's checkpoint functions and just enough of the rest to compute.
 *
 * In a program, cuInit() starts a thread that, as the real driver's, carries out what another
 * process asks: it must run for anything to happen, and its state is part of the process.  Device
 * memory lies in an unlinked file that stands for an open device: a checkpoint copies it into
 * memory of the process and closes it, a restore makes a new one.
 *
 * In a process that asks, the functions find the target's `self` below the same offset of its copy
 * of this library, and talk to it with process_vm_readv() and process_vm_writev().
 *
 * Faults: fake.h.
 */
#include "fake.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define MAGIC 0x66616b6563756461ULL
#define THREAD_NAME "cuda-fake"
#define BLOCKS 64

enum { RUNNING, LOCKED, CHECKPOINTED, FAILED };
enum {
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    ILLEGAL_STATE = 401,
    NOT_READY = 600,
    NOT_SUPPORTED = 801
};
enum operation { OP_NONE, OP_LOCK, OP_CHECKPOINT, OP_RESTORE, OP_UNLOCK };

struct block {
    uint64_t address, bytes; /* of the device */
    int device;
    char *staged;
};

/* What a process is to the driver.  Requests come from outside into `asked`. */
struct self {
    uint64_t magic;
    volatile uint32_t state;
    volatile uint32_t asked, answered; /* counts; a request is there when they differ */
    volatile uint32_t operation, result;
    volatile uint32_t timeout_ms;
    volatile uint32_t n_pairs;
    unsigned char pairs[FAKE_GPUS][2][16];
    unsigned char uuid[FAKE_GPUS][16];
    int n_gpus;
    uint32_t used; /* a bit for each GPU with memory of ours */
};

static struct self self;
static pthread_mutex_t calls = PTHREAD_MUTEX_INITIALIZER; /* held while a call works */
static struct block blocks[BLOCKS];
static int device = -1; /* the file */
static uint64_t next_address;
static int current;

static void nap(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    (void)nanosleep(&t, NULL);
}

static void uuid_bytes(const char *text, unsigned char out[16])
{
    int n = 0;
    for (const char *p = text + 4; *p && n < 32; p++) {
        if (*p == '-')
            continue;
        unsigned v = (unsigned)(*p <= '9' ? *p - '0' : (*p | 32) - 'a' + 10);
        out[n / 2] = (unsigned char)(out[n / 2] << 4 | v);
        n++;
    }
}

static int open_device(void)
{
    char path[] = "/dev/nvidia-fake-XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        (void)unlink(path);
    return fd;
}

/* ---- in the program: the driver's thread ---- */

static uint32_t do_checkpoint(void)
{
    if (self.state != LOCKED)
        return ILLEGAL_STATE;
    const char *uvm = getenv("CHREK_FAKE_UVM");
    if (uvm) {
        self.state = strcmp(uvm, "bad") == 0 ? FAILED : LOCKED;
        return NOT_SUPPORTED;
    }
    for (int i = 0; i < BLOCKS; i++) {
        struct block *b = &blocks[i];
        if (!b->address)
            continue;
        b->staged = malloc(b->bytes);
        if (!b->staged ||
            pread(device, b->staged, b->bytes, (off_t)b->address) != (ssize_t)b->bytes)
            return OUT_OF_MEMORY;
    }
    if (device >= 0)
        (void)close(device);
    device = -1;
    self.state = CHECKPOINTED;
    return 0;
}

static void move_devices(void)
{
    for (int i = 0; i < self.n_gpus; i++)
        for (uint32_t k = 0; k < self.n_pairs; k++)
            if (memcmp(self.uuid[i], self.pairs[k][0], 16) == 0) {
                memcpy(self.uuid[i], self.pairs[k][1], 16);
                break;
            }
}

static uint32_t do_restore(void)
{
    if (self.state != CHECKPOINTED)
        return ILLEGAL_STATE;
    move_devices();
    for (int i = 0; i < BLOCKS; i++) {
        struct block *b = &blocks[i];
        if (!b->address)
            continue;
        if (device < 0)
            device = open_device();
        if (pwrite(device, b->staged, b->bytes, (off_t)b->address) != (ssize_t)b->bytes)
            return OUT_OF_MEMORY;
        free(b->staged);
        b->staged = NULL;
    }
    self.state = LOCKED;
    return 0;
}

static uint32_t do_lock(void)
{
    struct timespec limit;
    if (self.state != RUNNING)
        return ILLEGAL_STATE;
    (void)clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += self.timeout_ms ? self.timeout_ms / 1000 : 3600;
    limit.tv_nsec += self.timeout_ms % 1000 * 1000000L;
    if (limit.tv_nsec >= 1000000000L) {
        limit.tv_sec++;
        limit.tv_nsec -= 1000000000L;
    }
    if (pthread_mutex_timedlock(&calls, &limit) != 0)
        return NOT_READY;
    self.state = LOCKED;
    (void)pthread_mutex_unlock(&calls);
    return 0;
}

static void *serve(void *arg)
{
    (void)arg;
    for (;;) {
        while (self.asked == self.answered)
            nap(1);
        uint32_t result = ILLEGAL_STATE;
        if (self.operation == OP_LOCK)
            result = do_lock();
        else if (self.operation == OP_CHECKPOINT)
            result = do_checkpoint();
        else if (self.operation == OP_RESTORE)
            result = do_restore();
        else if (self.operation == OP_UNLOCK && self.state == LOCKED)
            self.state = RUNNING, result = 0;
        self.result = result;
        __sync_synchronize();
        self.answered = self.asked;
    }
    return NULL;
}

/* ---- in the program: the functions that compute ---- */

/* A call waits while the process is locked. */
static void begin(void)
{
    for (;;) {
        (void)pthread_mutex_lock(&calls);
        if (self.state == RUNNING)
            return;
        (void)pthread_mutex_unlock(&calls);
        nap(1);
    }
}

static int end(int code)
{
    (void)pthread_mutex_unlock(&calls);
    return code;
}

static struct block *block_of(uint64_t address, uint64_t bytes)
{
    for (int i = 0; i < BLOCKS; i++)
        if (blocks[i].address && address >= blocks[i].address &&
            address + bytes <= blocks[i].address + blocks[i].bytes)
            return &blocks[i];
    return NULL;
}

/* The driver's own names. */
// NOLINTBEGIN(readability-identifier-naming)
int cuInit(unsigned flags);
int cuDriverGetVersion(int *out);
int cuGetErrorName(int code, const char **out);
int cuDeviceGetCount(int *out);
int cuDeviceGet(int *out, int ordinal);
int cuDeviceGetUuid(unsigned char *out, int d);
int cuDevicePrimaryCtxRetain(void **out, int d);
int cuCtxSetCurrent(void *context);
int cuMemAlloc_v2(uint64_t *out, size_t bytes);
int cuMemFree_v2(uint64_t address);
int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes);
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes);
int cuModuleLoadData(void **out, const void *image);
int cuModuleGetFunction(void **out, void *module, const char *name);
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void *stream, void **args, void **extra);
int cuCtxSynchronize(void);
int cuCheckpointProcessLock(int pid, void *args);
int cuCheckpointProcessCheckpoint(int pid, void *args);
int cuCheckpointProcessRestore(int pid, void *args);
int cuCheckpointProcessUnlock(int pid, void *args);
int cuCheckpointProcessGetState(int pid, int *out);
int cuCheckpointProcessGetRestoreThreadId(int pid, int *out);

/* What CHREK_FAKE_CUDA says of an operation. */
static int fault(const char *operation)
{
    static unsigned failed; /* atomic */
    const char *p = getenv("CHREK_FAKE_CUDA");
    size_t n = strlen(operation);
    while (p && (strncmp(p, operation, n) != 0 || p[n] != '='))
        p = (p = strchr(p, ',')) ? p + 1 : NULL;
    if (!p)
        return 0;
    unsigned code = 0, times = ~0U, ms = 0;
    if (strncmp(p + n, "=hang", 5) == 0)
        for (;;)
            nap(1000);
    if (sscanf(p + n, "=slow:%u", &ms) == 1)
        nap((long)ms);
    if (sscanf(p + n, "=fail:%u:%u", &code, &times) < 1 ||
        __sync_fetch_and_add(&failed, 1) >= times)
        return 0;
    return (int)code;
}

EXPORT int cuInit(unsigned flags)
{
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
    struct fake_gpu gpus[FAKE_GPUS];
    pthread_t thread;
    int code = fault("init");
    (void)flags;
    if (code)
        return code;
    (void)pthread_mutex_lock(&once);
    if (self.magic != MAGIC) {
        self.n_gpus = fake_gpus(gpus);
        for (int i = 0; i < self.n_gpus; i++)
            uuid_bytes(gpus[i].uuid, self.uuid[i]);
        code = self.n_gpus ? 0 : NO_DEVICE;
        self.magic = MAGIC;
        if (pthread_create(&thread, NULL, serve, NULL) == 0) {
            (void)pthread_setname_np(thread, THREAD_NAME); /* before anybody may look for it */
            (void)pthread_detach(thread);
        }
    }
    (void)pthread_mutex_unlock(&once);
    return code;
}

EXPORT int cuDriverGetVersion(int *out)
{
    int major = 0;
    (void)sscanf(fake_driver(), "%d", &major);
    *out = major >= 580 ? 13000 : major >= 570 ? 12080 : 12040;
    return 0;
}

EXPORT int cuGetErrorName(int code, const char **out)
{
    static const struct {
        int code;
        const char *name;
    } names[] = {{0, "CUDA_SUCCESS"},
                 {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
                 {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
                 {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
                 {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
                 {ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE"},
                 {NOT_READY, "CUDA_ERROR_NOT_READY"},
                 {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"}};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (names[i].code == code) {
            *out = names[i].name;
            return 0;
        }
    return INVALID_VALUE;
}

EXPORT int cuDeviceGetCount(int *out)
{
    *out = self.n_gpus;
    return 0;
}

EXPORT int cuDeviceGet(int *out, int ordinal)
{
    *out = ordinal;
    return ordinal < self.n_gpus ? 0 : NO_DEVICE;
}

EXPORT int cuDeviceGetUuid(unsigned char *out, int d)
{
    begin();
    memcpy(out, self.uuid[d], 16);
    return end(0);
}

EXPORT int cuDevicePrimaryCtxRetain(void **out, int d)
{
    *out = &self.uuid[d];
    return 0;
}

EXPORT int cuCtxSetCurrent(void *context)
{
    current = (int)(((unsigned char *)context - self.uuid[0]) / 16);
    return 0;
}

EXPORT int cuMemAlloc_v2(uint64_t *out, size_t bytes)
{
    begin();
    if (device < 0)
        device = open_device();
    for (int i = 0; i < BLOCKS; i++)
        if (!blocks[i].address) {
            next_address = next_address ? next_address : 1 << 20;
            blocks[i] = (struct block){.address = next_address, .bytes = bytes, .device = current};
            next_address += (bytes + 4095) / 4096 * 4096;
            *out = blocks[i].address;
            return end(ftruncate(device, (off_t)next_address) < 0 ? OUT_OF_MEMORY : 0);
        }
    return end(OUT_OF_MEMORY);
}

EXPORT int cuMemFree_v2(uint64_t address)
{
    begin();
    struct block *b = block_of(address, 1);
    if (!b)
        return end(INVALID_VALUE);
    *b = (struct block){.address = 0};
    return end(0);
}

EXPORT int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes)
{
    begin();
    if (!block_of(to, bytes))
        return end(INVALID_VALUE);
    return end(pwrite(device, from, bytes, (off_t)to) == (ssize_t)bytes ? 0 : INVALID_VALUE);
}

EXPORT int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes)
{
    begin();
    if (!block_of(from, bytes))
        return end(INVALID_VALUE);
    return end(pread(device, to, bytes, (off_t)from) == (ssize_t)bytes ? 0 : INVALID_VALUE);
}

EXPORT int cuModuleLoadData(void **out, const void *image)
{
    *out = &blocks;
    return strstr(image, "chrek_step") ? 0 : INVALID_VALUE;
}

EXPORT int cuModuleGetFunction(void **out, void *module, const char *name)
{
    *out = module;
    return strcmp(name, "chrek_step") == 0 ? 0 : INVALID_VALUE;
}

/* The one kernel that there is, tests/workloads/cuda.c: x = x * 1664525 + 1013904223 + its number.
 */
EXPORT int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                          unsigned bz, unsigned shared, void *stream, void **args, void **extra)
{
    (void)f, (void)gy, (void)gz, (void)by, (void)bz, (void)shared, (void)stream, (void)extra;
    uint64_t address = *(uint64_t *)args[0];
    uint32_t n = *(uint32_t *)args[1];
    uint32_t *x = malloc((size_t)n * 4);
    begin();
    int code = !x || (uint64_t)gx * bx < n || !block_of(address, (uint64_t)n * 4) ||
                       pread(device, x, (size_t)n * 4, (off_t)address) != (ssize_t)n * 4
                   ? INVALID_VALUE
                   : 0;
    for (uint32_t i = 0; !code && i < n; i++)
        x[i] = x[i] * 1664525U + 1013904223U + i;
    if (!code && pwrite(device, x, (size_t)n * 4, (off_t)address) != (ssize_t)n * 4)
        code = INVALID_VALUE;
    if (getenv("CHREK_FAKE_BUSY"))
        nap(60000);
    free(x);
    return end(code);
}

EXPORT int cuCtxSynchronize(void)
{
    begin();
    return end(0);
}

/* ---- in a process that asks ---- */

static bool peek(int pid, uint64_t at, void *out, size_t len)
{
    struct iovec here = {out, len}, there = {(void *)at, len};
    return process_vm_readv(pid, &here, 1, &there, 1, 0) == (ssize_t)len;
}

static bool poke(int pid, uint64_t at, const void *in, size_t len)
{
    struct iovec here = {(void *)(uintptr_t)in, len}, there = {(void *)at, len};
    return process_vm_writev(pid, &here, 1, &there, 1, 0) == (ssize_t)len;
}

/* Where a process has this library; 0 = nowhere. */
static uint64_t base_of(int pid)
{
    char path[64], line[512];
    uint64_t base = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/maps", pid);
    FILE *f = fopen(path, "re");
    while (f && !base && fgets(line, sizeof(line), f))
        if (strstr(line, "/libcuda.so"))
            base = strtoull(line, NULL, 16);
    if (f)
        (void)fclose(f);
    return base;
}

/* The address of a process's `self`, 0 if it has not called cuInit(). */
static uint64_t find_self(int pid)
{
    uint64_t theirs = base_of(pid), ours = base_of(getpid()), magic = 0;
    uint64_t at = theirs + ((uint64_t)(uintptr_t)&self - ours);
    return theirs && ours && peek(pid, at, &magic, sizeof(magic)) && magic == MAGIC ? at : 0;
}

#define FIELD(name) (at + offsetof(struct self, name))

static int ask(int pid, enum operation operation, const char *name, unsigned timeout_ms)
{
    int code = fault(name);
    uint64_t at = code ? 0 : find_self(pid);
    if (code)
        return code;
    if (!at)
        return NOT_INITIALIZED;
    struct self s;
    uint32_t op = operation;
    if (!poke(pid, FIELD(operation), &op, 4) || !poke(pid, FIELD(timeout_ms), &timeout_ms, 4) ||
        !peek(pid, at, &s, sizeof(s)))
        return NOT_INITIALIZED;
    s.asked++;
    if (!poke(pid, FIELD(asked), (const void *)&s.asked, 4))
        return NOT_INITIALIZED;
    do {
        nap(1);
        if (!peek(pid, at, &s, sizeof(s)))
            return NOT_INITIALIZED;
    } while (s.answered != s.asked);
    return (int)s.result;
}

EXPORT int cuCheckpointProcessGetState(int pid, int *out)
{
    struct self s;
    int code = fault("state");
    uint64_t at = code ? 0 : find_self(pid);
    if (code)
        return code;
    if (!at || !peek(pid, at, &s, sizeof(s)))
        return NOT_INITIALIZED;
    *out = (int)s.state;
    return 0;
}

/* Its number is that of the asker's PID namespace. */
EXPORT int cuCheckpointProcessGetRestoreThreadId(int pid, int *out)
{
    char path[300], name[64];
    int code = fault("thread");
    if (code)
        return code;
    if (!find_self(pid))
        return NOT_INITIALIZED;
    (void)snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *d = opendir(path);
    *out = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        (void)snprintf(path, sizeof(path), "/proc/%d/task/%s/comm", pid, e->d_name);
        FILE *f = e->d_name[0] == '.' ? NULL : fopen(path, "re");
        if (f && fgets(name, sizeof(name), f) && strncmp(name, THREAD_NAME, 9) == 0)
            *out = (int)strtol(e->d_name, NULL, 10);
        if (f)
            (void)fclose(f);
    }
    if (d)
        (void)closedir(d);
    return *out ? 0 : NOT_INITIALIZED;
}

EXPORT int cuCheckpointProcessLock(int pid, void *args)
{
    return ask(pid, OP_LOCK, "lock", args ? *(unsigned *)args : 0);
}

EXPORT int cuCheckpointProcessCheckpoint(int pid, void *args)
{
    (void)args;
    return ask(pid, OP_CHECKPOINT, "checkpoint", 0);
}

EXPORT int cuCheckpointProcessUnlock(int pid, void *args)
{
    (void)args;
    return ask(pid, OP_UNLOCK, "unlock", 0);
}

struct restore_args {
    const unsigned char *pairs;
    unsigned n;
};

static bool is_here(const unsigned char uuid[16])
{
    struct fake_gpu gpus[FAKE_GPUS];
    int n = fake_gpus(gpus);
    for (int i = 0; i < n; i++) {
        unsigned char bytes[16] = {0};
        uuid_bytes(gpus[i].uuid, bytes);
        if (memcmp(bytes, uuid, 16) == 0)
            return true;
    }
    return false;
}

/* As the driver: a map must name every GPU of the process, and where they go must be here. */
static bool fits(const struct self *s, const struct restore_args *a)
{
    for (int i = 0; i < s->n_gpus; i++) {
        const unsigned char *to = a->n ? NULL : s->uuid[i];
        for (unsigned k = 0; k < a->n; k++)
            if (memcmp(a->pairs + 32UL * k, s->uuid[i], 16) == 0)
                to = a->pairs + 32UL * k + 16;
        if (!to || !is_here(to))
            return false;
    }
    return true;
}

EXPORT int cuCheckpointProcessRestore(int pid, void *args)
{
    struct self s;
    struct restore_args none = {NULL, 0}, *a = args ? args : &none;
    uint64_t at = find_self(pid);
    if (!at || !peek(pid, at, &s, sizeof(s)))
        return NOT_INITIALIZED;
    if (a->n > FAKE_GPUS || !fits(&s, a))
        return NO_DEVICE;
    if (!poke(pid, FIELD(n_pairs), &a->n, 4) ||
        (a->n && !poke(pid, FIELD(pairs), a->pairs, 32UL * a->n)))
        return NOT_INITIALIZED;
    return ask(pid, OP_RESTORE, "restore", 0);
}
// NOLINTEND(readability-identifier-naming)

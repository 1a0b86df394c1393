#include "driver/cuda.h"

#include "base/compiler.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

_Static_assert(sizeof(struct cuda_lock_args) == 64, "as the driver has it");
_Static_assert(sizeof(struct cuda_restore_args) == 64, "as the driver has it");
_Static_assert(sizeof(struct cuda_plain_args) == 64, "as the driver has it");

static const struct {
    const char *name;
    size_t offset;
    bool basic; /* every driver has it */
} functions[] = {
    {"cuInit", offsetof(struct cuda, init), true},
    {"cuDriverGetVersion", offsetof(struct cuda, version), true},
    {"cuGetErrorName", offsetof(struct cuda, error_name), true},
    {"cuCheckpointProcessLock", offsetof(struct cuda, lock), false},
    {"cuCheckpointProcessCheckpoint", offsetof(struct cuda, checkpoint), false},
    {"cuCheckpointProcessRestore", offsetof(struct cuda, restore), false},
    {"cuCheckpointProcessUnlock", offsetof(struct cuda, unlock), false},
    {"cuCheckpointProcessGetState", offsetof(struct cuda, state), false},
    {"cuCheckpointProcessGetRestoreThreadId", offsetof(struct cuda, thread), false},
};

enum rc cuda_bind(struct cuda *c, void *lib, void *(*find)(void *lib, const char *name),
                  struct err *err)
{
    struct cuda found = {.lib = lib};
    for (size_t i = 0; i < ARRAY_LEN(functions); i++) {
        void *f = find(lib, functions[i].name);
        memcpy((char *)&found + functions[i].offset, &f, sizeof(f));
        if (!f && functions[i].basic)
            return err_set(err, RC_UNSUPPORTED,
                           "libcuda.so.1 is no CUDA driver: it has no function %s",
                           functions[i].name);
        if (!f && !found.missing)
            found.missing = functions[i].name;
    }
    if (found.version(&found.cuda) != CUDA_OK)
        return err_set(err, RC_UNSUPPORTED, "the CUDA driver does not tell its version");
    *c = found;
    return RC_OK;
}

enum rc cuda_open(struct cuda *out, struct err *err)
{
    void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        return err_set(err, RC_NOT_FOUND,
                       "no GPU driver: %.200s (install the NVIDIA driver, or in a container ask "
                       "the runtime for it: NVIDIA_DRIVER_CAPABILITIES=compute,utility)",
                       dlerror());
    return cuda_bind(out, lib, dlsym, err);
}

const char *cuda_name(const struct cuda *c, int code)
{
    const char *name = NULL;
    if (c->error_name(code, &name) != CUDA_OK || !name)
        return "an error that the driver has no name for";
    return name;
}

enum rc cuda_rc(int code)
{
    switch (code) {
    case CUDA_OK:
        return RC_OK;
    case CUDA_OUT_OF_MEMORY:
        return RC_NO_SPACE;
    case CUDA_ILLEGAL_STATE:
        return RC_CONFLICT;
    case CUDA_NOT_READY:
        return RC_TIMEOUT;
    case CUDA_NOT_PERMITTED:
        return RC_DENIED;
    case CUDA_NO_DEVICE:
    case CUDA_INVALID_DEVICE:
    case CUDA_NOT_SUPPORTED:
    case CUDA_DRIVER_MISMATCH:
        return RC_UNSUPPORTED;
    default:
        return RC_IO;
    }
}

static unsigned digit(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    return (unsigned)((c | 32) - 'a') + 10;
}

struct cuda_uuid cuda_uuid_of(const char *text)
{
    struct cuda_uuid u = {{0}};
    size_t n = 0;
    for (const char *p = text + 4; *p && n < 2 * sizeof(u.bytes); p++)
        if (*p != '-') {
            u.bytes[n / 2] = (unsigned char)((unsigned)u.bytes[n / 2] << 4 | digit(*p));
            n++;
        }
    return u;
}

#include "driver/nvml.h"

#include "base/compiler.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* Declared after NVML's documentation; handles are pointers to nothing that we know. */
struct nvml_memory {
    unsigned long long total, free, used;
};

struct nvml {
    void *lib;
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error)(int code);
    int (*driver)(char *out, unsigned len);
    int (*count)(unsigned *out);
    int (*handle)(unsigned index, void **out);
    int (*uuid)(void *device, char *out, unsigned len);
    int (*name)(void *device, char *out, unsigned len);
    int (*memory)(void *device, struct nvml_memory *out);
    int (*minor)(void *device, unsigned *out);
    int (*mig)(void *device, unsigned *current, unsigned *pending);
};

static enum rc bind(struct nvml *n, struct err *err)
{
    static const struct {
        const char *name;
        size_t offset;
    } functions[] = {
        {"nvmlInit_v2", offsetof(struct nvml, init)},
        {"nvmlShutdown", offsetof(struct nvml, shutdown)},
        {"nvmlErrorString", offsetof(struct nvml, error)},
        {"nvmlSystemGetDriverVersion", offsetof(struct nvml, driver)},
        {"nvmlDeviceGetCount_v2", offsetof(struct nvml, count)},
        {"nvmlDeviceGetHandleByIndex_v2", offsetof(struct nvml, handle)},
        {"nvmlDeviceGetUUID", offsetof(struct nvml, uuid)},
        {"nvmlDeviceGetName", offsetof(struct nvml, name)},
        {"nvmlDeviceGetMemoryInfo", offsetof(struct nvml, memory)},
        {"nvmlDeviceGetMinorNumber", offsetof(struct nvml, minor)},
        {"nvmlDeviceGetMigMode", offsetof(struct nvml, mig)},
    };
    n->lib = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!n->lib)
        return err_set(err, RC_NOT_FOUND,
                       "no list of GPUs: %.200s (in a container: "
                       "NVIDIA_DRIVER_CAPABILITIES=compute,utility)",
                       dlerror());
    for (size_t i = 0; i < ARRAY_LEN(functions); i++) {
        void *f = dlsym(n->lib, functions[i].name);
        if (!f)
            return err_set(err, RC_UNSUPPORTED, "libnvidia-ml.so.1 has no function %s",
                           functions[i].name);
        memcpy((char *)n + functions[i].offset, &f, sizeof(f));
    }
    return RC_OK;
}

/* false: a GPU that cannot be asked, e.g. one that has fallen off the bus: it is none. */
static bool describe(const struct nvml *n, unsigned index, struct gpu_device *out)
{
    struct gpu_device d = {.minor = GPU_MINOR_UNKNOWN};
    struct nvml_memory memory = {0};
    void *device = NULL;
    unsigned current = 0, pending = 0;
    char uuid[96] = "";
    if (n->handle(index, &device) != 0 || n->uuid(device, uuid, sizeof(uuid)) != 0 ||
        !gpu_uuid_valid(uuid) || n->name(device, d.name, sizeof(d.name)) != 0 ||
        n->memory(device, &memory) != 0)
        return false;
    memcpy(d.uuid, uuid, sizeof(d.uuid));
    d.memory_bytes = memory.total;
    if (n->minor(device, &d.minor) != 0)
        d.minor = GPU_MINOR_UNKNOWN;
    d.mig = n->mig(device, &current, &pending) == 0 && current == 1; /* older models know no MIG */
    *out = d;
    return true;
}

static enum rc inventory(const struct nvml *n, struct gpu_facts *out, struct err *err)
{
    unsigned count = 0;
    struct gpu_facts f = *out;
    f.n_devices = 0;
    int code = n->driver ? n->driver(f.driver, sizeof(f.driver)) : 0;
    if (code == 0 && n->count)
        code = n->count(&count);
    if (code != 0)
        return err_set(err, RC_UNSUPPORTED, "the GPUs cannot be listed: %s",
                       n->error ? n->error(code) : "unknown");
    for (unsigned i = 0; i < count && f.n_devices < GPU_DEVICES_MAX; i++)
        f.n_devices += describe(n, i, &f.device[f.n_devices]);
    *out = f;
    return RC_OK;
}

enum rc nvml_inventory(struct gpu_facts *out, struct err *err)
{
    struct nvml n = {0};
    enum rc rc = bind(&n, err);
    int code = rc || !n.init ? 0 : n.init();
    if (!rc && code != 0)
        rc = err_set(err, RC_UNSUPPORTED, "the GPUs cannot be listed: %s",
                     n.error ? n.error(code) : "unknown");
    if (!rc)
        rc = inventory(&n, out, err);
    if (n.shutdown)
        (void)n.shutdown();
    if (n.lib)
        (void)dlclose(n.lib);
    return rc;
}

/* A libnvidia-ml.so.1 that lists the GPUs of fake.h. */
#include "fake.h"

#define EXPORT __attribute__((visibility("default")))
#define NOT_FOUND 6
#define NOT_SUPPORTED 3

struct memory {
    unsigned long long total, free, used;
};

// NOLINTBEGIN(readability-identifier-naming): as the library names them
int nvmlInit_v2(void);
int nvmlShutdown(void);
const char *nvmlErrorString(int code);
int nvmlSystemGetDriverVersion(char *out, unsigned len);
int nvmlDeviceGetCount_v2(unsigned *out);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out);
int nvmlDeviceGetUUID(void *device, char *out, unsigned len);
int nvmlDeviceGetName(void *device, char *out, unsigned len);
int nvmlDeviceGetMemoryInfo(void *device, struct memory *out);
int nvmlDeviceGetMinorNumber(void *device, unsigned *out);
int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending);

static struct fake_gpu gpus[FAKE_GPUS];
static int n_gpus;

EXPORT int nvmlInit_v2(void)
{
    n_gpus = fake_gpus(gpus);
    return getenv("CHREK_FAKE_NVML_FAILS") ? 9 : 0;
}

EXPORT int nvmlShutdown(void)
{
    return 0;
}

EXPORT const char *nvmlErrorString(int code)
{
    return code == 9 ? "Driver Not Loaded" : "Unknown Error";
}

EXPORT int nvmlSystemGetDriverVersion(char *out, unsigned len)
{
    return snprintf(out, len, "%s", fake_driver()) >= (int)len;
}

EXPORT int nvmlDeviceGetCount_v2(unsigned *out)
{
    *out = (unsigned)n_gpus;
    return 0;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out)
{
    if (index >= (unsigned)n_gpus)
        return NOT_FOUND;
    *out = &gpus[index];
    return 0;
}

EXPORT int nvmlDeviceGetUUID(void *device, char *out, unsigned len)
{
    return snprintf(out, len, "%s", ((struct fake_gpu *)device)->uuid) >= (int)len;
}

EXPORT int nvmlDeviceGetName(void *device, char *out, unsigned len)
{
    return snprintf(out, len, "%s", ((struct fake_gpu *)device)->name) >= (int)len;
}

EXPORT int nvmlDeviceGetMemoryInfo(void *device, struct memory *out)
{
    *out = (struct memory){.total = ((struct fake_gpu *)device)->bytes};
    return 0;
}

EXPORT int nvmlDeviceGetMinorNumber(void *device, unsigned *out)
{
    *out = (unsigned)((struct fake_gpu *)device - gpus);
    return 0;
}

EXPORT int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending)
{
    if (strcmp(((struct fake_gpu *)device)->name, "Old GPU") == 0)
        return NOT_SUPPORTED;
    *current = *pending = ((struct fake_gpu *)device)->mig;
    return 0;
}
// NOLINTEND(readability-identifier-naming)

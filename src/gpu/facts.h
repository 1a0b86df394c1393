/* What a machine's GPUs are, as a restore must know it: compared before anything is restored, and
 * the source of the device map.
 *
 * A device's UUID has the driver's spelling, "GPU-" and 36 characters.  An order of devices is that
 * of the driver.  Threads: values, no shared state.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

#define GPU_UUID_LEN 40 /* without the NUL */
#define GPU_NAME_MAX 96
#define GPU_VERSION_MAX 32
#define GPU_DEVICES_MAX 64
#define GPU_MINOR_UNKNOWN UINT32_MAX

struct gpu_device {
    uint64_t memory_bytes;
    uint32_t minor; /* of /dev/nvidia<minor> */
    char uuid[GPU_UUID_LEN + 1];
    char name[GPU_NAME_MAX]; /* "NVIDIA H100 80GB HBM3" */
    bool mig;                /* is cut into instances */
};

struct gpu_facts {
    char driver[GPU_VERSION_MAX]; /* "580.65.06" */
    uint32_t cuda;                /* what the driver implements: 13000 is 13.0 */
    bool can_checkpoint;          /* the driver has the functions for it */
    bool can_map;                 /* a process can be restored onto other GPUs */
    size_t n_devices;
    struct gpu_device device[GPU_DEVICES_MAX];
};

struct gpu_pair {
    char from[GPU_UUID_LEN + 1], to[GPU_UUID_LEN + 1];
};

/* Which GPU takes the place of which; empty: each its own. */
struct gpu_map {
    size_t n;
    struct gpu_pair pair[GPU_DEVICES_MAX];
};

/* Whether a text is spelled as a UUID of the driver. */
bool gpu_uuid_valid(const char *text);

/* Parse "old=new,old=new".  errors  RC_INVALID */
enum rc gpu_map_parse(const char *text, struct gpu_map *out, struct err *err);

/* Major number of the driver, 0 if the text is no version. */
unsigned gpu_driver_major(const struct gpu_facts *f);

/* Keep only the devices with these minor numbers.  None known: all stay. */
void gpu_facts_keep(struct gpu_facts *f, const uint32_t *minors, size_t n);

/* Can what was saved with `saved` run with `here`?  Equal UUIDs stay where they are, the rest takes
 * the free devices of the same model in their order.
 * out     which GPU takes the place of which; empty when all stay
 * errors  RC_UNSUPPORTED: driver, number, model, memory or MIG, with both values and a remedy */
enum rc gpu_facts_match(const struct gpu_facts *saved, const struct gpu_facts *here,
                        struct gpu_map *out, struct err *err);

/* As a member of a JSON document. */
void gpu_facts_write(const struct gpu_facts *f, yyjson_mut_doc *doc, yyjson_mut_val *obj);
/* errors  RC_CORRUPT (a device without a UUID, too many) */
enum rc gpu_facts_read(yyjson_val *obj, struct gpu_facts *out, struct err *err);

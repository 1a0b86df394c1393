#include "gpu/facts.h"

#include "base/num.h"
#include "codec/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MIB ((uint64_t)1 << 20)
/* What the driver keeps for itself differs a little between machines of the same model. */
#define MEMORY_SLACK (512 * MIB)

bool gpu_uuid_valid(const char *text)
{
    if (strlen(text) != GPU_UUID_LEN || strncmp(text, "GPU-", 4) != 0)
        return false;
    for (size_t i = 4; i < GPU_UUID_LEN; i++) {
        bool dash = i == 12 || i == 17 || i == 22 || i == 27;
        if (dash ? text[i] != '-' : !strchr("0123456789abcdefABCDEF", text[i]))
            return false;
    }
    return true;
}

/* One "old=new" of `len` bytes. */
static bool parse_pair(const char *text, size_t len, struct gpu_pair *out)
{
    if (len != 2 * GPU_UUID_LEN + 1 || text[GPU_UUID_LEN] != '=')
        return false;
    *out = (struct gpu_pair){{0}, {0}};
    memcpy(out->from, text, GPU_UUID_LEN);
    memcpy(out->to, text + GPU_UUID_LEN + 1, GPU_UUID_LEN);
    return gpu_uuid_valid(out->from) && gpu_uuid_valid(out->to);
}

enum rc gpu_map_parse(const char *text, struct gpu_map *out, struct err *err)
{
    struct gpu_map map = {0};
    while (*text) {
        size_t len = strcspn(text, ",");
        if (map.n == GPU_DEVICES_MAX)
            return err_set(err, RC_INVALID, "a device map of more than %d pairs", GPU_DEVICES_MAX);
        if (!parse_pair(text, len, &map.pair[map.n]))
            return err_set(err, RC_INVALID, "'%.100s' is no pair of GPU UUIDs: GPU-...=GPU-...",
                           text);
        map.n++;
        text += len;
        if (*text == ',' && *++text == '\0')
            return err_set(err, RC_INVALID, "a device map ends with a comma");
    }
    if (map.n == 0)
        return err_set(err, RC_INVALID, "an empty device map");
    *out = map;
    return RC_OK;
}

unsigned gpu_driver_major(const struct gpu_facts *f)
{
    char digits[GPU_VERSION_MAX];
    uint64_t n = 0;
    size_t len = strspn(f->driver, "0123456789");
    (void)snprintf(digits, sizeof(digits), "%.*s", (int)len, f->driver);
    return num_parse_u64(digits, 0, 100000, &n, NULL) == RC_OK ? (unsigned)n : 0;
}

void gpu_facts_keep(struct gpu_facts *f, const uint32_t *minors, size_t n)
{
    size_t kept = 0;
    struct gpu_device device[GPU_DEVICES_MAX];
    for (size_t i = 0; i < f->n_devices; i++)
        for (size_t k = 0; k < n; k++)
            if (f->device[i].minor == minors[k]) {
                device[kept++] = f->device[i];
                break;
            }
    if (kept == 0)
        return;
    memcpy(f->device, device, kept * sizeof(*device));
    f->n_devices = kept;
}

/* ---- comparing ---- */

static bool same_kind(const struct gpu_device *a, const struct gpu_device *b)
{
    return strcmp(a->name, b->name) == 0 && a->mig == b->mig &&
           b->memory_bytes + MEMORY_SLACK >= a->memory_bytes;
}

static enum rc no_device(const struct gpu_device *want, const struct gpu_facts *here,
                         struct err *err)
{
    for (size_t i = 0; i < here->n_devices; i++) {
        const struct gpu_device *d = &here->device[i];
        if (strcmp(d->name, want->name) != 0)
            continue;
        if (d->mig != want->mig)
            return err_set(err, RC_UNSUPPORTED,
                           "it was saved with MIG %s, and GPU %zu has MIG %s; set it with "
                           "nvidia-smi -mig",
                           want->mig ? "on" : "off", i, d->mig ? "on" : "off");
        if (d->memory_bytes + MEMORY_SLACK < want->memory_bytes)
            return err_set(err, RC_UNSUPPORTED,
                           "it was saved on a GPU with %" PRIu64 " MiB of memory, and GPU %zu has "
                           "%" PRIu64 " MiB",
                           want->memory_bytes / MIB, i, d->memory_bytes / MIB);
    }
    return err_set(err, RC_UNSUPPORTED,
                   "it was saved on '%s', and this machine has '%s'; restore on the same model",
                   want->name, here->n_devices ? here->device[0].name : "no GPU");
}

static enum rc compare_drivers(const struct gpu_facts *saved, const struct gpu_facts *here,
                               struct err *err)
{
    if (!here->can_checkpoint)
        return err_set(err, RC_UNSUPPORTED, "driver %s cannot restore GPU state; 570 or newer can",
                       here->driver[0] ? here->driver : "(none)");
    if (strcmp(saved->driver, here->driver) != 0)
        return err_set(err, RC_UNSUPPORTED,
                       "it was saved with GPU driver %s, and this machine has %s; the driver's "
                       "library is part of the program's memory",
                       saved->driver, here->driver);
    if (saved->n_devices > here->n_devices)
        return err_set(err, RC_UNSUPPORTED, "it was saved with %zu GPUs, and this machine has %zu",
                       saved->n_devices, here->n_devices);
    return RC_OK;
}

/* The device with that UUID, else the first free one of the same kind; n_devices = none. */
static size_t choose(const struct gpu_device *want, const struct gpu_facts *here, const bool *taken)
{
    for (size_t i = 0; i < here->n_devices; i++)
        if (strcmp(here->device[i].uuid, want->uuid) == 0)
            return !taken[i] && same_kind(want, &here->device[i]) ? i : here->n_devices;
    for (size_t i = 0; i < here->n_devices; i++)
        if (!taken[i] && same_kind(want, &here->device[i]))
            return i;
    return here->n_devices;
}

static bool is_here(const struct gpu_device *d, const struct gpu_facts *here)
{
    for (size_t i = 0; i < here->n_devices; i++)
        if (strcmp(here->device[i].uuid, d->uuid) == 0)
            return true;
    return false;
}

enum rc gpu_facts_match(const struct gpu_facts *saved, const struct gpu_facts *here,
                        struct gpu_map *out, struct err *err)
{
    struct gpu_map map = {0};
    bool taken[GPU_DEVICES_MAX] = {false}, moved = false;
    size_t place[GPU_DEVICES_MAX] = {0};
    enum rc rc = compare_drivers(saved, here, err);
    /* First those that stay, so that nobody else takes their device. */
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; !rc && i < saved->n_devices; i++) {
            if (is_here(&saved->device[i], here) != (round == 0))
                continue;
            place[i] = choose(&saved->device[i], here, taken);
            if (place[i] == here->n_devices)
                rc = no_device(&saved->device[i], here, err);
            else
                taken[place[i]] = true;
        }
    if (rc)
        return rc;
    for (size_t i = 0; i < saved->n_devices; i++) {
        struct gpu_pair *p = &map.pair[map.n++];
        memcpy(p->from, saved->device[i].uuid, sizeof(p->from));
        memcpy(p->to, here->device[place[i]].uuid, sizeof(p->to));
        moved = moved || strcmp(p->from, p->to) != 0;
    }
    if (moved && !here->can_map)
        return err_set(err, RC_UNSUPPORTED,
                       "it was saved on other GPUs of this model, and driver %s cannot restore "
                       "onto others; 580 or newer can",
                       here->driver);
    if (!moved)
        map.n = 0; /* a map makes the driver take a slower way */
    *out = map;
    return RC_OK;
}

/* ---- JSON ---- */

void gpu_facts_write(const struct gpu_facts *f, yyjson_mut_doc *doc, yyjson_mut_val *obj)
{
    (void)yyjson_mut_obj_add_strcpy(doc, obj, "driver", f->driver);
    (void)yyjson_mut_obj_add_uint(doc, obj, "cuda", f->cuda);
    (void)yyjson_mut_obj_add_bool(doc, obj, "can_checkpoint", f->can_checkpoint);
    (void)yyjson_mut_obj_add_bool(doc, obj, "can_map", f->can_map);
    yyjson_mut_val *list = yyjson_mut_arr(doc);
    (void)yyjson_mut_obj_add_val(doc, obj, "devices", list);
    for (size_t i = 0; i < f->n_devices; i++) {
        yyjson_mut_val *d = yyjson_mut_arr_add_obj(doc, list);
        (void)yyjson_mut_obj_add_strcpy(doc, d, "uuid", f->device[i].uuid);
        (void)yyjson_mut_obj_add_strcpy(doc, d, "name", f->device[i].name);
        (void)yyjson_mut_obj_add_uint(doc, d, "memory_bytes", f->device[i].memory_bytes);
        (void)yyjson_mut_obj_add_bool(doc, d, "mig", f->device[i].mig);
    }
}

enum rc gpu_facts_read(yyjson_val *obj, struct gpu_facts *out, struct err *err)
{
    struct gpu_facts f = {.cuda = (uint32_t)json_u64(obj, "cuda", 0),
                          .can_checkpoint = json_bool(obj, "can_checkpoint", false),
                          .can_map = json_bool(obj, "can_map", false)};
    (void)snprintf(f.driver, sizeof(f.driver), "%s", json_str(obj, "driver", ""));
    yyjson_val *list = yyjson_obj_get(obj, "devices");
    size_t n = yyjson_arr_size(list);
    if (n > GPU_DEVICES_MAX)
        return err_set(err, RC_CORRUPT, "%zu GPUs", n);
    for (size_t i = 0; i < n; i++) {
        yyjson_val *v = yyjson_arr_get(list, i);
        struct gpu_device *d = &f.device[f.n_devices++];
        const char *uuid = json_str(v, "uuid", "");
        if (!gpu_uuid_valid(uuid))
            return err_set(err, RC_CORRUPT, "'%.60s' is no GPU's UUID", uuid);
        memcpy(d->uuid, uuid, sizeof(d->uuid));
        (void)snprintf(d->name, sizeof(d->name), "%s", json_str(v, "name", ""));
        d->memory_bytes = json_u64(v, "memory_bytes", 0);
        d->minor = GPU_MINOR_UNKNOWN;
        d->mig = json_bool(v, "mig", false);
    }
    *out = f;
    return RC_OK;
}

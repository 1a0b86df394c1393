#include "store/metadata_shape.h"

#include "base/compiler.h"
#include "store/metadata.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum kind { BOOL, NUMBER, COUNT, OBJECT, STRINGS, OBJECTS, COUNTS, TEXTS, KIND_COUNT_ };

static const char *const kind_names[KIND_COUNT_] = {
    [BOOL] = "true or false",
    [NUMBER] = "a number",
    [COUNT] = "a number that is not negative",
    [OBJECT] = "an object",
    [STRINGS] = "a list of strings",
    [OBJECTS] = "a list of objects",
    [COUNTS] = "an object of numbers",
    [TEXTS] = "an object of strings",
};

static const struct member {
    const char *in; /* the object that has it; "" is the document */
    const char *key;
    enum kind kind;
} members[] = {
    {"", "pid", NUMBER},
    {"", "has_rootfs_diff", BOOL},
    {"", "has_deleted_files", BOOL},
    {"", "mounts", OBJECTS},
    {"", "namespaces", OBJECTS},
    {"", "masked_paths", STRINGS},
    {"", "readonly_paths", STRINGS},
    {"", "bind_mount_dests", STRINGS},
    {"", "criu_options", OBJECT},
    {"", "chrek", OBJECT},
    {"criu_options", "tcp_established", BOOL},
    {"criu_options", "tcp_close", BOOL},
    {"criu_options", "shell_job", BOOL},
    {"criu_options", "file_locks", BOOL},
    {"criu_options", "leave_running", BOOL},
    {"criu_options", "link_remap", BOOL},
    {"criu_options", "ext_masters", BOOL},
    {"chrek", "format", COUNT},
    {"chrek", "generation", COUNT},
    {"chrek", "root_pid", NUMBER},
    {"chrek", "command", STRINGS},
    {"chrek", "streams", OBJECTS},
    {"chrek", "private_net", BOOL},
    {"chrek", "container", BOOL},
    {"chrek", "has_shm", BOOL},
    {"chrek", "host_shm", BOOL},
    {"chrek", "labels", TEXTS},
    {"chrek", "timings_ns", COUNTS},
    {"chrek", "gpu", OBJECT},
    {"chrek", "freeze_ns", COUNT},
    {"chrek", "sync_ns", COUNT},
    {"chrek", "pages_bytes", COUNT},
    {"chrek", "total_bytes", COUNT},
    {"chrek", "packed", BOOL},
    {"chrek", "zero_bytes", COUNT},
    {"chrek", "known_bytes", COUNT},
    {"chrek", "packed_bytes", COUNT},
};

static bool all_of(yyjson_val *list, bool (*is)(yyjson_val *))
{
    size_t i, max;
    yyjson_val *k, *v;
    if (yyjson_is_obj(list)) {
        yyjson_obj_foreach(list, i, max, k, v)
        {
            if (!is(v))
                return false;
        }
        return true;
    }
    yyjson_arr_foreach(list, i, max, v)
    {
        if (!is(v))
            return false;
    }
    return true;
}

static bool is_text(yyjson_val *v)
{
    return yyjson_is_str(v);
}

static bool is_count(yyjson_val *v)
{
    return yyjson_is_uint(v);
}

static bool is_object(yyjson_val *v)
{
    return yyjson_is_obj(v);
}

static bool has_kind(yyjson_val *v, enum kind kind)
{
    switch (kind) {
    case BOOL:
        return yyjson_is_bool(v);
    case NUMBER:
        return yyjson_is_int(v);
    case COUNT:
        return is_count(v);
    case OBJECT:
        return is_object(v);
    case STRINGS:
        return yyjson_is_arr(v) && all_of(v, is_text);
    case OBJECTS:
        return yyjson_is_arr(v) && all_of(v, is_object);
    case COUNTS:
        return is_object(v) && all_of(v, is_count);
    case TEXTS:
        return is_object(v) && all_of(v, is_text);
    case KIND_COUNT_:
    default:
        return false;
    }
}

enum rc metadata_shape_check(yyjson_val *root, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(members); i++) {
        const struct member *m = &members[i];
        yyjson_val *in = *m->in ? yyjson_obj_get(root, m->in) : root;
        yyjson_val *v = yyjson_obj_get(in, m->key);
        if (v && !yyjson_is_null(v) && !has_kind(v, m->kind))
            return err_set(err, RC_CORRUPT, METADATA_NAME ": '%s' is not %s", m->key,
                           kind_names[m->kind]);
    }
    return RC_OK;
}

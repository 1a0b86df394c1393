#include "codec/name.h"

#include <string.h>

static const char *const reserved[] = {"tmp", "restore-logs", "packs", "keys", "lost+found"};

static const char *fault_of(const char *id)
{
    size_t n = strlen(id);
    if (n == 0)
        return "it is empty";
    if (n > 255)
        return "it has more than 255 bytes";
    if (id[0] == '.' || id[0] == '-')
        return "it begins with a dot or a dash";
    if (strstr(id, "..") || strstr(id, ".tmp-"))
        return "it contains '..' or '.tmp-'";
    for (const char *p = id; *p; p++)
        if (*p == '/' || *p == '\\' || (unsigned char)*p < 0x20 || *p == 0x7f)
            return "it contains a slash, a backslash or a control character";
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
        if (strcmp(id, reserved[i]) == 0)
            return "the store uses it itself";
    return NULL;
}

bool name_is_id(const char *id)
{
    return fault_of(id) == NULL;
}

enum rc name_check_id(const char *id, struct err *err)
{
    const char *fault = fault_of(id);
    return fault ? err_set(err, RC_INVALID, "'%.64s' cannot name a checkpoint: %s", id, fault)
                 : RC_OK;
}

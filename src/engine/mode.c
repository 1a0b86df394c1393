#include "engine/mode.h"

#include "base/compiler.h"

#include <stddef.h>
#include <string.h>

static const char *const names[] = {[ENGINE_DEFAULT] = "default",
                                    [ENGINE_FULL] = "full",
                                    [ENGINE_WORKINGSET] = "workingset",
                                    [ENGINE_LAZY] = "lazy",
                                    [ENGINE_CRIU] = "criu"};

enum rc mode_parse(const char *text, enum engine_mode *out, struct err *err)
{
    if (!text) {
        *out = ENGINE_DEFAULT;
        return RC_OK;
    }
    for (size_t i = ENGINE_FULL; i < ARRAY_LEN(names); i++)
        if (strcmp(text, names[i]) == 0) {
            *out = (enum engine_mode)i;
            return RC_OK;
        }
    return err_set(err, RC_INVALID, "restore mode '%.32s': want full, workingset, lazy or criu",
                   text);
}

const char *mode_name(enum engine_mode mode)
{
    return names[mode];
}

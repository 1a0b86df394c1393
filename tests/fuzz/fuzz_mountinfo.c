/* Whatever parses can be asked; each mount lies on some mount. */
#include "base/mem.h"
#include "container/mounts.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(mounts_done) struct mounts m = {0};
    if (mounts_parse((const char *)data, size, &m, NULL) != RC_OK)
        return 0;
    for (size_t i = 0; i < m.n; i++) {
        const struct mount *one = &m.list[i];
        CLEANUP(mem_freep) char *upper = mounts_option(one->super, "upperdir");
        if (!mounts_by_id(&m, one->id) || !one->root || !one->type || !one->source)
            abort();
        if (one->target[0] == '/' && !mounts_of_path(&m, one->target))
            abort();
        (void)mounts_has_option(one->options, "ro");
    }
    return 0;
}

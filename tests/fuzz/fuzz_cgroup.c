/* /proc/<pid>/cgroup. */
#include "container/cgroup.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(cgroups_done) struct cgroups c = {0};
    if (cgroups_parse((const char *)data, size, &c, NULL) != RC_OK)
        return 0;
    for (size_t i = 0; i < c.n; i++)
        if (!c.list[i].controllers || c.list[i].path[0] != '/')
            abort();
    (void)cgroups_v2(&c);
    (void)cgroups_v1(&c, "memory");
    return 0;
}

/* /proc/<pid>/maps and smaps. */
#include "container/maps.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(maps_done) struct maps m = {0};
    if (maps_parse((const char *)data, size, &m, NULL) != RC_OK)
        return 0;
    for (size_t i = 0; i < m.n; i++)
        if (m.list[i].start > m.list[i].end || !m.list[i].name)
            abort();
    return 0;
}

/* The text of fdinfo, and the same bytes as the link of a descriptor. */
#include "base/mem.h"
#include "container/fdinfo.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fdinfo_text t;
    CLEANUP(mem_freep) char *link = mem_alloc(size + 1);
    if (fdinfo_parse((const char *)data, size, &t, NULL) == RC_OK && t.mnt_id < -1)
        abort();
    if (size)
        memcpy(link, data, size);
    link[size] = '\0';
    static const mode_t modes[] = {0, S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFDIR};
    for (size_t i = 0; i < ARRAY_LEN(modes); i++)
        if (!fd_kind_name(fd_kind_of(link, modes[i], 0)))
            abort();
    return 0;
}

/* /proc/<pid>/status: what parses is a process with a name that ends. */
#include "container/task.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct task_status t;
    if (task_status_parse((const char *)data, size, &t, NULL) != RC_OK)
        return 0;
    if (t.pid <= 0 || strnlen(t.name, sizeof(t.name)) == sizeof(t.name) ||
        t.n_ns_pid > TASK_NS_DEPTH_MAX || task_inner_pid(&t) < 0)
        abort();
    return 0;
}

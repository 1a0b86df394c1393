/* /proc/<pid>/stat: the name can hold anything and must not move the fields behind it. */
#include "container/task.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char head[] = "77 (",
                      tail[] = ") S 11 22 33 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 5 9 1";
    char text[sizeof(head) + sizeof(tail) + TASK_NAME_MAX];
    struct task_stat t;
    if (task_stat_parse((const char *)data, size, &t, NULL) == RC_OK &&
        strnlen(t.name, sizeof(t.name)) == sizeof(t.name))
        abort();

    size_t n = size < TASK_NAME_MAX ? size : TASK_NAME_MAX;
    memcpy(text, head, sizeof(head) - 1);
    if (n)
        memcpy(text + sizeof(head) - 1, data, n);
    memcpy(text + sizeof(head) - 1 + n, tail, sizeof(tail) - 1);
    n += sizeof(head) + sizeof(tail) - 2;
    if (task_stat_parse(text, n, &t, NULL) != RC_OK || t.pid != 77 || t.ppid != 11 || t.sid != 33)
        abort();
    return 0;
}

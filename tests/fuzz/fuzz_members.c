/* An archive of another program: every member that is shown has a clean path and the bytes that it
 * promises, or is refused. */
#include "base/compiler.h"
#include "base/sys.h"
#include "exchange/members.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum rc look(void *arg, const struct member *m, struct member_data *d, struct err *err)
{
    char some[4096];
    uint64_t got = 0;
    size_t n = 0, *total = arg;
    if (members_check_path(m->path, NULL) != RC_OK || m->path[0] == '/' ||
        strncmp(m->path, "../", 3) == 0 || strstr(m->path, "/../"))
        abort();
    enum rc rc = RC_OK;
    do {
        rc = member_read(d, some, sizeof(some), &n, err);
        got += n;
    } while (!rc && n == sizeof(some));
    if (!rc && got > m->size)
        abort();
    *total += got;
    return *total > ((size_t)4 << 20) ? RC_CANCELLED : rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[40];
    size_t total = 0;
    CLEANUP(fd_closep) int fd = memfd_create("fuzz-members", MFD_CLOEXEC);
    if (fd < 0 || sys_write_all(fd, data, size, NULL) != RC_OK)
        abort();
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    (void)!members_each(path, look, &total, NULL);
    return 0;
}

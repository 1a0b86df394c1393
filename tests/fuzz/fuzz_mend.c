/* files.img of a checkpoint: mended once, there is nothing more to mend. */
#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"
#include "criu/mend.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool size_now(void *arg, const char *path, uint64_t was, uint64_t *out_bytes)
{
    (void)arg;
    (void)path;
    *out_bytes = was + 1;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int dir = -1;
    size_t once = 0, twice = 0;
    if (dir < 0) {
        char path[] = "/dev/shm/fuzz-mend-XXXXXX";
        if (!mkdtemp(path))
            abort();
        dir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
        if (dir < 0)
            abort();
    }
    if (fs_write_whole(dir, "files.img", data, size, 0600, NULL) != RC_OK)
        abort();
    if (cr_mend(dir, &once, NULL) != RC_OK)
        return 0;
    if (cr_mend(dir, &twice, NULL) != RC_OK || twice != 0)
        abort();
    if (cr_follow_logs(dir, size_now, NULL, NULL) != RC_OK)
        abort();
    return 0;
}

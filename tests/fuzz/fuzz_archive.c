/* A tar archive from a checkpoint, extracted: nothing may appear outside the target. */
#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"
#include "rootfs/tmpfs.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int top = -1, target = -1;

static void set_up(void)
{
    char path[] = "/dev/shm/fuzz-archive-XXXXXX";
    if (!mkdtemp(path))
        abort();
    top = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (top < 0 || mkdirat(top, "canary", 0700) < 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (top < 0)
        set_up();
    if (mkdirat(top, "target", 0700) < 0 ||
        (target = sys_openat(top, "target", O_RDONLY | O_DIRECTORY, 0)) < 0 ||
        fs_write_whole(top, "a.tar", data, size, 0600, NULL) != RC_OK)
        abort();
    (void)!tmpfs_load(top, "a.tar", target, NULL);
    fd_closep(&target);
    struct stat st;
    if (fs_remove_tree(top, "target", NULL) != RC_OK || unlinkat(top, "a.tar", 0) < 0 ||
        unlinkat(top, "canary", AT_REMOVEDIR) < 0 || fstat(top, &st) < 0)
        abort();
    if (mkdirat(top, "canary", 0700) < 0)
        abort();
    return 0;
}

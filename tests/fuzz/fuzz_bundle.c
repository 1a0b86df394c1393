/* A checkpoint's archive from object storage, unpacked: nothing may appear outside the target, and
 * no more bytes than the archive has for each member. */
#include "backend/drivers.h"
#include "base/fs.h"
#include "base/sys.h"
#include "store/bundle.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int top = -1;

static void set_up(void)
{
    char path[] = "/dev/shm/fuzz-bundle-XXXXXX";
    if (!mkdtemp(path))
        abort();
    top = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (top < 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct backend *b = NULL;
    struct backend_object *o = NULL;
    bool all = false;
    if (top < 0)
        set_up();
    if (mkdirat(top, "target", 0700) < 0 || backend_mem_open(&b, NULL) != RC_OK ||
        backend_put(b, "x", data, size, NULL) != RC_OK || backend_open(b, "x", &o, NULL) != RC_OK)
        abort();
    int target = sys_openat(top, "target", O_RDONLY | O_DIRECTORY, 0);
    (void)!bundle_read(o, BUNDLE_DOCUMENTS, target, &all, NULL);
    (void)!bundle_read(o, BUNDLE_ALL, target, &all, NULL);
    fd_closep(&target);
    backend_closep(&o);
    backend_freep(&b);
    struct stat st;
    if (fs_remove_tree(top, "target", NULL) != RC_OK || fstat(top, &st) < 0 || st.st_nlink != 2)
        abort();
    return 0;
}

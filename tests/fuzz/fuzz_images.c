/* A directory of images of any content is read or refused.  Input: any number of
 * {file 0..9, length of 2 bytes, content}. */
#include "base/fs.h"
#include "criu/images.h"
#include "criu/listeners.h"
#include "criu/locks.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[] = {"pstree.img",      "core-301.img", "mm-301.img",
                                    "pagemap-301.img", "files.img",    "fdinfo-2.img",
                                    "fs-301.img",      "ids-301.img",  "pages-3.img"};
#define NAMES (sizeof(names) / sizeof(names[0]))

static char path[] = "/tmp/chrek-fuzz-XXXXXX";

static void leave(void)
{
    (void)rmdir(path);
}

static int directory(void)
{
    static int fd = -1;
    if (fd >= 0)
        return fd;
    if (!mkdtemp(path) || atexit(leave) != 0)
        abort();
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        abort();
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    int dir = directory();
    struct err err = ERR_INIT;
    struct cr_images *images = NULL;
    while (len >= 3) {
        size_t n = (size_t)data[1] << 8 | data[2];
        n = n > len - 3 ? len - 3 : n;
        if (fs_write_whole(dir, names[data[0] % NAMES], data + 3, n, 0600, NULL) != RC_OK)
            abort();
        data += 3 + n;
        len -= 3 + n;
    }
    if (cr_images_load(dir, NULL, &images, &err) != RC_OK && !err.msg[0])
        abort();
    cr_images_freep(&images);
    struct cr_lock *locks = NULL;
    size_t n = 0;
    err = (struct err)ERR_INIT;
    if (cr_locks_load(dir, &locks, &n, &err) != RC_OK && !err.msg[0])
        abort();
    cr_locks_free(locks, n);
    struct cr_listener *listeners = NULL;
    err = (struct err)ERR_INIT;
    if (cr_listeners_load(dir, &listeners, &n, &err) != RC_OK && !err.msg[0])
        abort();
    free(listeners);
    for (size_t i = 0; i < NAMES; i++)
        (void)unlinkat(dir, names[i], 0);
    return 0;
}

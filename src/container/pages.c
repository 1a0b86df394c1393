#include "container/pages.h"

#include "base/compiler.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* As in linux/fs.h of 6.7; ours may be older. */
struct scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
struct region {
    uint64_t start, end, categories;
};
#define SCAN _IOWR('f', 16, struct scan_arg)
enum { IS_FILE = 1 << 2, IS_PRESENT = 1 << 3, IS_SWAPPED = 1 << 4, IS_PFNZERO = 1 << 5 };

#define REGIONS 2048U /* that are asked for at once */

static struct scan_arg question(uint64_t start, uint64_t end, struct region *regions)
{
    return (struct scan_arg){.size = sizeof(struct scan_arg),
                             .start = start,
                             .end = end,
                             .vec = (uint64_t)(uintptr_t)regions,
                             .vec_len = REGIONS,
                             .category_inverted = IS_PFNZERO | IS_FILE,
                             .category_mask = IS_PFNZERO | IS_FILE,
                             .category_anyof_mask = IS_PRESENT | IS_SWAPPED,
                             .return_mask = IS_PRESENT};
}

enum rc pages_open(pid_t pid, int *out_fd, struct err *err)
{
    char path[40];
    (void)snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
    int fd = sys_openat(AT_FDCWD, path, O_RDONLY, 0);
    if (fd < 0)
        return err_sys(err, "open '%s'", path);
    *out_fd = fd;
    return RC_OK;
}

bool pages_can_scan(void)
{
    int fd = -1;
    struct region regions[1];
    if (pages_open(getpid(), &fd, NULL) != RC_OK)
        return false;
    struct scan_arg a = question(0, PAGES_SIZE, regions);
    a.vec_len = 1;
    bool can = ioctl(fd, SCAN, &a) >= 0;
    fd_closep(&fd);
    return can;
}

enum rc pages_scan(int pagemap, uint64_t start, uint64_t end, pages_visit *visit, void *arg,
                   struct err *err)
{
    struct region regions[REGIONS];
    while (start < end) {
        struct scan_arg a = question(start, end, regions);
        int n = ioctl(pagemap, SCAN, &a);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == ENOTTY || errno == EINVAL))
            return err_set(err, RC_UNSUPPORTED, "this kernel cannot list pages (Linux 6.7 can)");
        if (n < 0)
            return err_sys(err, "list the pages at %#jx", (uintmax_t)start);
        for (int i = 0; i < n; i++) {
            struct pages_run run = {regions[i].start,
                                    (regions[i].end - regions[i].start) / PAGES_SIZE};
            enum rc rc = visit(arg, &run, err);
            if (rc)
                return rc;
        }
        if (a.walk_end <= start)
            return err_set(err, RC_IO, "the list of pages at %#jx does not go on",
                           (uintmax_t)start);
        start = a.walk_end;
    }
    return RC_OK;
}

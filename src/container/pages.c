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
enum { IS_REGISTERED = 1 << 0, IS_WRITTEN = 1 << 1 };
/* Places that fault, by MADV_GUARD_INSTALL; told since Linux 6.15, before that they look swapped.
 */
enum { IS_GUARD = 1 << 8 };
enum { IS_PRESENT = 1 << 3, IS_SWAPPED = 1 << 4, IS_PFNZERO = 1 << 5 };

enum { PROTECT = 1 << 0, ONLY_REGISTERED = 1 << 1 }; /* flags */

#define REGIONS 2048U /* that are asked for at once */

/* Whether a page is a file's is not asked: to know it the kernel looks at what it keeps of each
 * page, which takes several times as long as all the rest, and of anonymous memory the answer is
 * no. */
static struct scan_arg question(uint64_t start, uint64_t end, struct region *regions)
{
    return (struct scan_arg){.size = sizeof(struct scan_arg),
                             .start = start,
                             .end = end,
                             .vec = (uint64_t)(uintptr_t)regions,
                             .vec_len = REGIONS,
                             .category_inverted = IS_PFNZERO | IS_GUARD,
                             .category_mask = IS_PFNZERO | IS_GUARD,
                             .category_anyof_mask = IS_PRESENT | IS_SWAPPED,
                             .return_mask = IS_PRESENT | IS_REGISTERED | IS_WRITTEN};
}

/* Older kernels refuse a category that they do not know. */
static int ask(int pagemap, struct scan_arg *a)
{
    int n = ioctl(pagemap, SCAN, a);
    if (n >= 0 || errno != EINVAL)
        return n;
    a->category_inverted &= ~(uint64_t)IS_GUARD;
    a->category_mask &= ~(uint64_t)IS_GUARD;
    return ioctl(pagemap, SCAN, a);
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
    bool can = ask(fd, &a) >= 0;
    fd_closep(&fd);
    return can;
}

static enum rc scan_failure(uint64_t start, struct err *err)
{
    if (errno == ENOTTY || errno == EINVAL)
        return err_set(err, RC_UNSUPPORTED, "this kernel cannot list pages (Linux 6.7 can)");
    return err_sys(err, "list the pages at %#jx", (uintmax_t)start);
}

/* Tell of the regions of one answer, from *reached on, and set it to where the last one ends. */
static enum rc tell(const struct region *regions, int n, uint64_t *reached, pages_visit *visit,
                    void *arg, struct err *err)
{
    for (int i = 0; i < n; i++) {
        const struct region *r = &regions[i];
        uint64_t from = r->start > *reached ? r->start : *reached;
        if (r->end <= from)
            continue;
        struct pages_run run = {
            .address = from,
            .pages = (r->end - from) / PAGES_SIZE,
            .unwritten = (r->categories & IS_REGISTERED) && !(r->categories & IS_WRITTEN),
        };
        enum rc rc = visit(arg, &run, err);
        if (rc)
            return rc;
        *reached = r->end;
    }
    return RC_OK;
}

/* FIXME(kernel <= 6.18): when there are more than 512 regions walk_end can be behind the last one
 * that was told.  Asking from there would tell pages twice, and after PROTECT with another answer:
 * the one that counts is the first. */
static enum rc scan(int pagemap, uint64_t flags, uint64_t start, uint64_t end, pages_visit *visit,
                    void *arg, struct err *err)
{
    struct region regions[REGIONS];
    while (start < end) {
        struct scan_arg a = question(start, end, regions);
        uint64_t reached = start;
        a.flags = flags;
        int n = ask(pagemap, &a);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return scan_failure(start, err);
        enum rc rc = tell(regions, n, &reached, visit, arg, err);
        if (rc)
            return rc;
        reached = a.walk_end > reached ? a.walk_end : reached;
        if (reached <= start)
            return err_set(err, RC_IO, "the list of pages at %#jx does not go on",
                           (uintmax_t)start);
        start = reached;
    }
    return RC_OK;
}

enum rc pages_scan(int pagemap, uint64_t start, uint64_t end, pages_visit *visit, void *arg,
                   struct err *err)
{
    return scan(pagemap, 0, start, end, visit, arg, err);
}

enum rc pages_protect(int pagemap, uint64_t start, uint64_t end, pages_visit *visit, void *arg,
                      struct err *err)
{
    return scan(pagemap, PROTECT | ONLY_REGISTERED, start, end, visit, arg, err);
}

bool pages_registered(int pagemap, uint64_t start, uint64_t end)
{
    struct region region;
    struct scan_arg a = question(start, end, &region);
    a.vec_len = a.max_pages = 1;
    return ask(pagemap, &a) == 1 && (region.categories & IS_REGISTERED);
}

/* Preloaded into CRIU by launch.c: leave chosen memory out of a dump.
 *
 * CRIU learns by ioctl(PAGEMAP_SCAN) which pages of a process there are, and then moves them one by
 * one through pipes, in one thread, with the process standing still.  Our own caller can copy the
 * same memory several times faster.  So where CHREK_HIDDEN_FD names a descriptor, that call does
 * not see the pages of large private anonymous mappings: CRIU saves the mappings without these
 * pages, and what was hidden is written to the descriptor, as the records below, for the caller
 * to save.  Without the variable nothing is changed.
 *
 * A record that cannot be written makes the call fail, and with it the dump: memory is either
 * CRIU's or has been told to the caller.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int ioctl_fn(int, unsigned long, ...);

/* As the kernel has it since 6.7 (linux/fs.h); older headers do not. */
struct scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
struct page_region {
    uint64_t start, end, categories;
};
#define SCAN_REQUEST 0xc0606610UL /* PAGEMAP_SCAN: _IOWR('f', 16, struct scan_arg) */
_Static_assert(sizeof(struct scan_arg) == 0x60, "its size is part of the request");
enum { PRESENT = 1 << 3, SWAPPED = 1 << 4 };

/* What the caller reads (src/criu/hidden.c). */
struct record {
    int32_t pid;   /* as CRIU sees it */
    uint32_t zero; /* not so in the records of keep.c */
    uint64_t start, end;
};

struct range {
    uint64_t start, end;
};

enum { SMALLEST = 256 << 10 }; /* bytes of a mapping that is hidden */

/* The mappings of the process that is being dumped; CRIU takes one after another, all frozen. */
static struct range *hidden;
static size_t n_hidden;
static long hidden_pid;

static int real_ioctl(int fd, unsigned long request, void *arg)
{
    static ioctl_fn *libc_ioctl;
    if (!libc_ioctl)
        *(void **)&libc_ioctl = dlsym(RTLD_NEXT, "ioctl");
    return libc_ioctl(fd, request, arg);
}

static int hidden_fd(void)
{
    static int fd = -2;
    const char *text = getenv("CHREK_HIDDEN_FD");
    if (fd == -2)
        fd = text && *text ? (int)strtol(text, NULL, 10) : -1;
    return fd;
}

/* The process whose pagemap a descriptor is, 0 if it is none or our own. */
static long pid_of(int fd)
{
    char path[64], link[64], tail[16];
    long pid = 0;
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, link, sizeof(link) - 1);
    link[n > 0 ? n : 0] = '\0';
    const char *at = strstr(link, "/pagemap");
    while (at && at > link && at[-1] != '/')
        at--;
    return at && sscanf(at, "%ld/%15s", &pid, tail) == 2 && strcmp(tail, "pagemap") == 0 &&
                   pid != (long)getpid()
               ? pid
               : 0;
}

/* Private, readable and writable, of no file, not the main stack: CRIU could load it lazily. */
static int may_hide(const char *line, struct range *out)
{
    char rights[8], device[16], name[16] = "";
    unsigned long long start, end, offset, inode;
    if (sscanf(line, "%llx-%llx %7s %llx %15s %llu %15s", &start, &end, rights, &offset, device,
               &inode, name) < 6)
        return 0;
    *out = (struct range){start, end};
    return strncmp(rights, "rw", 2) == 0 && rights[3] == 'p' && inode == 0 &&
           end - start >= SMALLEST &&
           (!name[0] || strcmp(name, "[heap]") == 0 || strncmp(name, "[anon:", 6) == 0);
}

static int load_mappings(long pid)
{
    char path[48], *line = NULL;
    size_t room = 0;
    (void)snprintf(path, sizeof(path), "/proc/%ld/maps", pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return -1;
    n_hidden = 0;
    while (getline(&line, &room, f) > 0) {
        struct range r;
        if (!may_hide(line, &r))
            continue;
        if ((n_hidden & (n_hidden + 1)) == 0) {
            void *more = realloc(hidden, (n_hidden + 1) * 2 * sizeof(*hidden));
            if (!more) {
                (void)fclose(f);
                return -1;
            }
            hidden = more;
        }
        hidden[n_hidden++] = r;
    }
    free(line);
    int failed = ferror(f);
    (void)fclose(f);
    hidden_pid = failed ? 0 : pid;
    return failed ? -1 : 0;
}

static int tell(long pid, uint64_t start, uint64_t end)
{
    struct record r = {(int32_t)pid, 0, start, end};
    ssize_t n = write(hidden_fd(), &r, sizeof(r));
    if (n == (ssize_t)sizeof(r))
        return 0;
    errno = n < 0 ? errno : ENOSPC;
    return -1;
}

/* One part of a scan that nothing is hidden from. Returns regions found, or -1. */
static int scan_part(int fd, struct scan_arg *whole, uint64_t start, uint64_t end, int found)
{
    struct scan_arg part = *whole;
    part.start = start;
    part.end = end;
    part.vec += (uint64_t)found * sizeof(struct page_region);
    part.vec_len -= (uint64_t)found;
    int n = real_ioctl(fd, SCAN_REQUEST, &part);
    whole->walk_end = part.walk_end;
    return n;
}

static int scan_visible(int fd, struct scan_arg *arg, long pid)
{
    uint64_t at = arg->start;
    int found = 0;
    if (hidden_pid != pid && load_mappings(pid) < 0)
        return -1;
    for (size_t i = 0; i <= n_hidden && at < arg->end; i++) {
        uint64_t from = i < n_hidden ? hidden[i].start : arg->end;
        uint64_t to = i < n_hidden ? hidden[i].end : arg->end;
        if (to <= at && i < n_hidden)
            continue;
        uint64_t stop = from < at ? at : from < arg->end ? from : arg->end;
        if (stop > at) {
            if ((uint64_t)found == arg->vec_len)
                return found; /* walk_end is where the last part ended */
            int n = scan_part(fd, arg, at, stop, found);
            if (n < 0)
                return n;
            found += n;
            if (arg->walk_end < stop)
                return found;
        }
        at = to < arg->end ? to : arg->end;
        if (at > stop && tell(pid, stop, at) < 0)
            return -1;
        arg->walk_end = at;
    }
    return found;
}

__attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    va_start(ap, request);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    struct scan_arg *scan = arg;
    long pid = 0;
    /* Only the question which pages there are; CRIU also asks about guard pages and the kernel. */
    if (request == SCAN_REQUEST && hidden_fd() >= 0 && scan->vec_len > 0 && scan->max_pages == 0 &&
        scan->category_anyof_mask == (PRESENT | SWAPPED))
        pid = pid_of(fd);
    return pid ? scan_visible(fd, scan, pid) : real_ioctl(fd, request, arg);
}

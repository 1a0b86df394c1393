#include "container/fdinfo.h"

#include "base/buf.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/scan.h"
#include "container/task.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static const char *const kind_names[FD_KIND_COUNT_] = {
    [FD_UNKNOWN] = "unknown",     [FD_FILE] = "file",         [FD_DIRECTORY] = "directory",
    [FD_SYMLINK] = "link",        [FD_CHARDEV] = "device",    [FD_BLOCKDEV] = "disk",
    [FD_FIFO] = "fifo",           [FD_PIPE] = "pipe",         [FD_SOCKET] = "socket",
    [FD_TTY] = "terminal",        [FD_MEMFD] = "memfd",       [FD_SECRET] = "memfd_secret",
    [FD_NAMESPACE] = "namespace", [FD_EVENTFD] = "eventfd",   [FD_EPOLL] = "epoll",
    [FD_TIMERFD] = "timerfd",     [FD_SIGNALFD] = "signalfd", [FD_INOTIFY] = "inotify",
    [FD_FANOTIFY] = "fanotify",   [FD_PIDFD] = "pidfd",       [FD_USERFAULTFD] = "userfaultfd",
    [FD_IO_URING] = "io_uring",   [FD_PERF] = "perf_event",   [FD_BPF] = "bpf",
    [FD_DMABUF] = "dma-buf",      [FD_KVM] = "kvm",           [FD_ANON] = "anonymous",
};

const char *fd_kind_name(enum fd_kind kind)
{
    return kind_names[kind];
}

/* ---- what a link says ---- */

#define ANON "anon_inode:"

static enum fd_kind anon_kind(struct scan name)
{
    static const struct {
        const char *text;
        enum fd_kind kind;
    } names[] = {
        {"[eventfd]", FD_EVENTFD},
        {"[eventpoll]", FD_EPOLL},
        {"[timerfd]", FD_TIMERFD},
        {"[signalfd]", FD_SIGNALFD},
        {"inotify", FD_INOTIFY},
        {"[fanotify]", FD_FANOTIFY},
        {"[pidfd]", FD_PIDFD},
        {"[io_uring]", FD_IO_URING},
        {"[userfaultfd]", FD_USERFAULTFD},
        {"[perf_event]", FD_PERF},
        {"bpf", FD_BPF},
        {"kvm", FD_KVM},
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (scan_starts(name, names[i].text))
            return names[i].kind;
    return FD_ANON;
}

static bool is_tty(dev_t rdev)
{
    unsigned m = major(rdev);
    return m == 4 || m == 5 || (m >= 128 && m <= 143) || m == 188 || m == 204;
}

/* "mnt:[4026531841]", which is a link of nsfs and cannot be a path. */
static bool is_namespace(struct scan s)
{
    struct scan key;
    return scan_ends(s, "]") && scan_until(&s, ':', &key) && scan_starts(s, "[") &&
           !scan_starts(key, "/") && !scan_is(key, "socket") && !scan_is(key, "pipe") &&
           !scan_is(key, "pidfd");
}

enum fd_kind fd_kind_of(const char *target, mode_t mode, dev_t rdev)
{
    struct scan s = scan_of(target, strlen(target));
    if (scan_starts(s, ANON))
        return anon_kind((struct scan){s.at + strlen(ANON), s.end});
    if (scan_starts(s, "pidfd:["))
        return FD_PIDFD;
    if (scan_starts(s, "/memfd:") && scan_ends(s, " (deleted)"))
        return FD_MEMFD;
    if (scan_is(s, "/secretmem (deleted)") || scan_is(s, "/secretmem"))
        return FD_SECRET;
    if (scan_starts(s, "/dmabuf:"))
        return FD_DMABUF;
    if (S_ISSOCK(mode))
        return FD_SOCKET;
    if (S_ISFIFO(mode))
        return scan_starts(s, "pipe:[") ? FD_PIPE : FD_FIFO;
    if (S_ISCHR(mode))
        return is_tty(rdev) ? FD_TTY : FD_CHARDEV;
    if (S_ISBLK(mode))
        return FD_BLOCKDEV;
    if (S_ISDIR(mode))
        return FD_DIRECTORY;
    if (S_ISLNK(mode))
        return FD_SYMLINK;
    if (S_ISREG(mode))
        return is_namespace(s) ? FD_NAMESPACE : FD_FILE;
    return FD_UNKNOWN;
}

/* ---- fdinfo ---- */

static bool take_line(struct scan key, struct scan value, struct fdinfo_text *t)
{
    struct scan word;
    uint64_t n = 0;
    int64_t i = 0;
    if (scan_is(key, "lock"))
        t->locks++;
    else if (scan_is(key, "tfd") || scan_is(key, "inotify wd") || scan_is(key, "fanotify ino") ||
             scan_is(key, "fanotify mnt_id"))
        t->watches++;
    else if (scan_is(key, "pos"))
        return scan_word(&value, &word) && scan_u64(word, 10, &t->pos);
    else if (scan_is(key, "ino"))
        return scan_word(&value, &word) && scan_u64(word, 10, &t->ino);
    else if (scan_is(key, "flags")) {
        if (!scan_word(&value, &word) || !scan_u64(word, 8, &n) || n > UINT_MAX)
            return false;
        t->flags = (unsigned)n;
    } else if (scan_is(key, "mnt_id")) {
        if (!scan_word(&value, &word) || !scan_i64(word, -1, INT_MAX, &i))
            return false;
        t->mnt_id = (int)i;
    } else if (scan_is(key, "Pid")) {
        if (!scan_word(&value, &word) || !scan_i64(word, -1, INT_MAX, &i))
            return false;
        t->pidfd_pid = (pid_t)i;
    }
    return true;
}

/* Lines such as "inotify wd:1 ino:..." have their key up to the first colon too. */
enum rc fdinfo_parse(const char *text, size_t len, struct fdinfo_text *out, struct err *err)
{
    struct fdinfo_text t = {.mnt_id = -1};
    struct scan line, key, s = scan_of(text, len);
    while (scan_line(&s, &line)) {
        if (!scan_until(&line, ':', &key))
            continue;
        while (scan_starts(key, " "))
            key.at++;
        if (!take_line(key, line, &t))
            return err_set(err, RC_CORRUPT, "'%.*s' of a descriptor makes no sense",
                           scan_len(key) < 40 ? (int)scan_len(key) : 40, key.at);
    }
    *out = t;
    return RC_OK;
}

/* ---- all descriptors of a process ---- */

void fdinfo_done(struct fdinfo_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->list[i].target);
    free(l->list);
    *l = (struct fdinfo_list){0};
}

/* The kernel tells a socket's protocol as an attribute of its link. */
static void look_at_socket(int task, struct fdinfo *f)
{
    char path[64], name[sizeof(f->protocol)] = "";
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d/fd/%d", task, f->fd);
    ssize_t n = getxattr(path, "system.sockprotoname", name, sizeof(name) - 1);
    if (n > 0)
        scan_copy(scan_of(name, strnlen(name, (size_t)n)), f->protocol, sizeof(f->protocol));
}

/* Look at one descriptor; false when it is not there any more. */
static bool look_at(int task, int fd, struct fdinfo *out)
{
    char link[24], text[24];
    struct stat st;
    struct fdinfo f = {.fd = fd, .info.mnt_id = -1};
    CLEANUP(mem_freep) char *target = NULL;
    CLEANUP(buf_done) struct buf info = BUF_INIT;
    (void)snprintf(link, sizeof(link), "fd/%d", fd);
    (void)snprintf(text, sizeof(text), "fdinfo/%d", fd);
    if (task_link(task, link, &target, NULL) != RC_OK || fstatat(task, link, &st, 0) < 0)
        return false;
    if (task_read(task, text, &info, NULL) == RC_OK)
        (void)fdinfo_parse(info.data, info.len, &f.info, NULL);
    f.kind = fd_kind_of(target, st.st_mode, st.st_rdev);
    f.dev = st.st_dev;
    f.rdev = st.st_rdev;
    f.ino = st.st_ino;
    f.size_bytes = st.st_size > 0 ? (uint64_t)st.st_size : 0;
    f.disk_bytes = (uint64_t)st.st_blocks * 512;
    f.links = (unsigned)st.st_nlink;
    f.deleted = (f.kind == FD_FILE || f.kind == FD_DIRECTORY) && st.st_nlink == 0;
    if (f.kind == FD_SOCKET)
        look_at_socket(task, &f);
    f.target = STEAL(target);
    *out = f;
    return true;
}

static int by_number(const void *a, const void *b)
{
    int x = ((const struct fdinfo *)a)->fd, y = ((const struct fdinfo *)b)->fd;
    return (x > y) - (x < y);
}

static void close_dirp(DIR **dir)
{
    if (*dir)
        (void)closedir(*dir);
}

enum rc fdinfo_read(int task, struct fdinfo_list *out, struct err *err)
{
    CLEANUP(fdinfo_done) struct fdinfo_list l = {0};
    CLEANUP(fd_closep) int fd = sys_openat(task, "fd", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0 && (errno == ESRCH || errno == ENOENT))
        return err_set(err, RC_NOT_FOUND, "the process has ended");
    CLEANUP(close_dirp) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return err_sys(err, "list the descriptors of the process");
    (void)fd_steal(&fd); /* now the DIR's */
    size_t cap = 0;
    for (const struct dirent *e; (e = readdir(dir));) {
        uint64_t number = 0;
        if (!scan_u64(scan_of(e->d_name, strlen(e->d_name)), 10, &number) || number > INT_MAX)
            continue;
        if (l.n == FDINFO_MAX)
            return err_set(err, RC_TOO_BIG, "more than %d descriptors", FDINFO_MAX);
        if (l.n == cap)
            l.list = mem_realloc(l.list, (cap = cap ? cap * 2 : 32) * sizeof(*l.list));
        bool seen = look_at(task, (int)number, &l.list[l.n]);
        l.n += seen;
        l.skipped += !seen;
    }
    if (l.n)
        qsort(l.list, l.n, sizeof(*l.list), by_number);
    *out = l;
    l = (struct fdinfo_list){0};
    return RC_OK;
}

#include "engine/audit_files.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/maps.h"
#include "engine/wires.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define TEXT_MAX 4096
#define GONE " (deleted)"

enum rc audit_memory_dev(dev_t *out, struct err *err)
{
    struct stat st;
    CLEANUP(fd_closep) int fd = memfd_create("chrek-audit", MFD_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(err, "make a memory file");
    *out = st.st_dev;
    return RC_OK;
}

static bool may(const struct audit_files *a, unsigned cap)
{
    return a->caps >> cap & 1;
}

/* ---- files ---- */

/* The mount that an open file is on, by what the kernel says of a descriptor of ours. */
static int mount_of(int fd)
{
    char path[48];
    struct fdinfo_text info = {.mnt_id = -1};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    (void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
    if (fs_read_file(AT_FDCWD, path, TEXT_MAX, &text, NULL) != RC_OK ||
        fdinfo_parse(text.data, text.len, &info, NULL) != RC_OK)
        return -1;
    return info.mnt_id;
}

static bool has_gone(const char *target)
{
    size_t len = strlen(target), tail = strlen(GONE);
    return len >= tail && strcmp(target + len - tail, GONE) == 0;
}

/* A file without a name was made by CRIU, with whatever mode an image names. */
static bool gives_rights(int fd)
{
    struct stat st;
    return fstat(fd, &st) < 0 ||
           (S_ISREG(st.st_mode) && st.st_nlink == 0 && (st.st_mode & (S_ISUID | S_ISGID)));
}

/* link  of the task: "fd/3", "cwd" */
static enum rc check_open(const struct audit_files *a, int task, const char *link, int how,
                          struct err *err)
{
    struct err why = ERR_INIT;
    CLEANUP(mem_freep) char *target = NULL;
    CLEANUP(fd_closep) int fd = sys_openat(task, link, O_PATH, 0);
    if (fd < 0)
        return err_sys(err, "look at '%s'", link);
    enum rc rc = task_link(task, link, &target, err);
    if (rc)
        return rc;
    if (!mounts_by_id(a->mounts, mount_of(fd)))
        return err_set(err, RC_DENIED, "its file '%.200s' is outside of the container", target);
    if (gives_rights(fd))
        return err_set(err, RC_DENIED, "its file '%.200s' gives rights to who executes it", target);
    rc = reach_file(a->reach, fd, how, a->root, target, &why);
    if (rc == RC_DENIED && has_gone(target))
        rc = reach_file(a->reach, fd, how, -1, NULL, &why);
    return rc ? err_set(err, rc, "its file '%.200s': %.200s", target, why.msg) : RC_OK;
}

static int how_opened(unsigned flags)
{
    if (flags & O_PATH)
        return 0;
    switch (flags & O_ACCMODE) {
    case O_RDONLY:
        return R_OK;
    case O_WRONLY:
        return W_OK;
    default:
        return R_OK | W_OK;
    }
}

/* ---- other descriptors ---- */

static bool is_one_of(enum fd_kind kind, const enum fd_kind *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == kind)
            return true;
    return false;
}

static bool is_restored(const struct audit_files *a, pid_t pid)
{
    for (size_t i = 0; i < a->n_tree; i++)
        if (a->tree[i].pid == pid)
            return true;
    return pid == -1; /* of a process that has ended */
}

enum rc audit_descriptor(const struct audit_files *a, const struct fdinfo *f, struct err *err)
{
    static const enum fd_kind common[] = {FD_PIPE,     FD_MEMFD,  FD_EVENTFD, FD_EPOLL,
                                          FD_SIGNALFD, FD_SOCKET, FD_TIMERFD, FD_INOTIFY};
    bool fine = is_one_of(f->kind, common, ARRAY_LEN(common)) ||
                (f->kind == FD_PIDFD && is_restored(a, f->info.pidfd_pid)) ||
                (f->kind == FD_FANOTIFY && may(a, CAP_SYS_ADMIN));
    /* CRIU finds what is watched by handles, which need no path to it. */
    if (f->kind == FD_INOTIFY && f->info.watches && !may(a, CAP_DAC_READ_SEARCH))
        return err_set(
            err, RC_DENIED,
            "it watches files (descriptor %d, inotify), and whether this container could "
            "watch them cannot be told; it needs DAC_READ_SEARCH",
            f->fd);
    if (fine)
        return RC_OK;
    return err_set(err, RC_DENIED, "its descriptor %d (%s, %.100s) may not be restored for it",
                   f->fd, fd_kind_name(f->kind), f->target);
}

static enum rc check_socket(const struct audit_files *a, pid_t pid, int number, struct err *err)
{
    struct wire w;
    CLEANUP(fd_closep) int process = (int)syscall(SYS_pidfd_open, pid, 0);
    CLEANUP(fd_closep)
    int sk = process < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, process, number, 0);
    if (sk < 0)
        return err_sys(err, "look at socket %d of it", number);
    enum rc rc = wire_read(sk, &w, err);
    return rc ? rc : wire_check(&w, a->caps, a->lowest_port, err);
}

/* One that wakes the machine up. */
static enum rc check_timer(const struct audit_files *a, int task, int number, struct err *err)
{
    char file[32];
    int clock = -1;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    (void)snprintf(file, sizeof(file), "fdinfo/%d", number);
    enum rc rc = task_read(task, file, &text, err);
    const char *at = rc ? NULL : strstr(buf_str(&text), "clockid:");
    if (rc ||
        (at && sscanf(at, "clockid: %d", &clock) == 1 && clock != CLOCK_REALTIME_ALARM &&
         clock != CLOCK_BOOTTIME_ALARM) ||
        may(a, CAP_WAKE_ALARM))
        return rc;
    return err_set(err, RC_DENIED, "its timer %d may wake the machine, and this container may not",
                   number);
}

static enum rc check_descriptor(const struct audit_files *a, int task, pid_t pid,
                                const struct fdinfo *f, struct err *err)
{
    static const enum fd_kind named[] = {FD_FILE,     FD_DIRECTORY, FD_SYMLINK, FD_CHARDEV,
                                         FD_BLOCKDEV, FD_FIFO,      FD_TTY};
    char link[24];
    (void)snprintf(link, sizeof(link), "fd/%d", f->fd);
    if (is_one_of(f->kind, named, ARRAY_LEN(named)))
        return check_open(a, task, link, how_opened(f->info.flags), err);
    enum rc rc = audit_descriptor(a, f, err);
    if (!rc && f->kind == FD_SOCKET)
        rc = check_socket(a, pid, f->fd, err);
    if (!rc && f->kind == FD_TIMERFD)
        rc = check_timer(a, task, f->fd, err);
    return rc;
}

static enum rc check_descriptors(const struct audit_files *a, int task, pid_t pid, struct err *err)
{
    CLEANUP(fdinfo_done) struct fdinfo_list files = {0};
    enum rc rc = fdinfo_read(task, &files, err);
    if (!rc && files.skipped)
        rc = err_set(err, RC_DENIED, "%zu descriptors of it cannot be looked at", files.skipped);
    for (size_t i = 0; !rc && i < files.n; i++)
        rc = check_descriptor(a, task, pid, &files.list[i], err);
    return rc;
}

/* ---- mappings ---- */

/* Whether it is of a file with a name; memory has names, too, that are none of files. */
static bool is_of_file(const struct audit_files *a, const struct map *m)
{
    static const char *const memory[] = {"/memfd:", ("/dev/zero" GONE), "/SYSV"};
    for (size_t i = 0; i < ARRAY_LEN(memory); i++)
        if (strncmp(m->name, memory[i], strlen(memory[i])) == 0 &&
            makedev(m->major, m->minor) == a->memory)
            return false;
    return m->ino && m->name[0] == '/' &&
           !(m->major == 0 && strcmp(m->name, "/anon_hugepage" GONE) == 0);
}

static enum rc check_map(const struct audit_files *a, int task, const struct map *m,
                         struct err *err)
{
    char link[64];
    struct err why = ERR_INIT;
    (void)snprintf(link, sizeof(link), "map_files/%" PRIx64 "-%" PRIx64, m->start, m->end);
    bool writes = (m->flags & MAPS_SHARES) && (m->flags & (MAPS_WRITE | MAPS_MAY_WRITE));
    enum rc rc = check_open(a, task, link, writes ? R_OK | W_OK : R_OK, &why);
    if (rc == RC_DENIED && !writes) /* a program that may be executed, and not read */
        rc = check_open(a, task, link, X_OK, NULL);
    return rc ? err_set(err, rc, "%s", why.msg) : RC_OK;
}

/* Whether what is shared and not written to could be is told by smaps alone, which takes long. */
static bool must_know_more(const struct audit_files *a, const struct maps *maps)
{
    for (size_t i = 0; i < maps->n; i++)
        if (is_of_file(a, &maps->list[i]) && (maps->list[i].flags & MAPS_SHARES) &&
            !(maps->list[i].flags & MAPS_WRITE))
            return true;
    return false;
}

static enum rc check_maps(const struct audit_files *a, int task, struct err *err)
{
    CLEANUP(maps_done) struct maps maps = {0};
    enum rc rc = maps_read(task, false, &maps, err);
    if (!rc && must_know_more(a, &maps)) {
        maps_done(&maps);
        rc = maps_read(task, true, &maps, err);
    }
    const struct map *last = NULL;
    for (size_t i = 0; !rc && i < maps.n; i++) {
        const struct map *m = &maps.list[i];
        if (!is_of_file(a, m) || (last && last->ino == m->ino && last->major == m->major &&
                                  last->minor == m->minor && !(m->flags & MAPS_SHARES)))
            continue;
        rc = check_map(a, task, m, err);
        last = m;
    }
    return rc;
}

enum rc audit_files(const struct audit_files *a, int task, pid_t pid, struct err *err)
{
    static const char *const links[] = {"cwd", "root", "exe"};
    enum rc rc = check_descriptors(a, task, pid, err);
    for (size_t i = 0; !rc && i < ARRAY_LEN(links); i++)
        rc = check_open(a, task, links[i], X_OK, err);
    return rc ? rc : check_maps(a, task, err);
}

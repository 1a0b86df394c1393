#include "base/sys.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef FAULTS
static unsigned fault_seen;
static unsigned fault_at = UINT_MAX;
static enum fault_action fault_what;

void fault_arm(unsigned n, enum fault_action action)
{
    __atomic_store_n(&fault_seen, 0, __ATOMIC_RELAXED);
    fault_at = n;
    fault_what = action;
}

void fault_disarm(void)
{
    fault_arm(UINT_MAX, FAULT_FAIL);
}

unsigned fault_passed(void)
{
    return __atomic_load_n(&fault_seen, __ATOMIC_RELAXED);
}

static bool fault_here(void)
{
    if (__atomic_fetch_add(&fault_seen, 1, __ATOMIC_RELAXED) != fault_at)
        return false;
    if (fault_what == FAULT_CRASH)
        _exit(FAULT_EXIT_STATUS);
    errno = EIO;
    return true;
}
#else
static bool fault_here(void)
{
    return false;
}
#endif

int sys_openat(int dirfd, const char *path, int flags, mode_t mode)
{
    return fault_here() ? -1 : openat(dirfd, path, flags | O_CLOEXEC, mode);
}

static _Atomic uint64_t synced_ns;

int sys_fsync(int fd)
{
    if (fault_here())
        return -1;
    uint64_t begun = clock_now();
    int rc = fsync(fd);
    synced_ns += clock_now() - begun;
    return rc;
}

uint64_t sys_synced_ns(void)
{
    return synced_ns;
}

int sys_open_in_root(int dirfd, const char *path, int flags, mode_t mode, uint64_t resolve)
{
    struct open_how how = {.flags = (uint64_t)(unsigned)flags | O_CLOEXEC,
                           .mode = mode,
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve};
    return fault_here() ? -1 : (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
}

int sys_mkdirat(int dirfd, const char *path, mode_t mode)
{
    return fault_here() ? -1 : mkdirat(dirfd, path, mode);
}

int sys_rename(int dirfd, const char *from, const char *to, unsigned flags)
{
    return fault_here() ? -1 : renameat2(dirfd, from, dirfd, to, flags);
}

int sys_unlinkat(int dirfd, const char *path, int flags)
{
    return fault_here() ? -1 : unlinkat(dirfd, path, flags);
}

struct dirent *sys_readdir(DIR *dir)
{
    return fault_here() ? NULL : readdir(dir);
}

int sys_link_fd(int fd, int dirfd, const char *name)
{
    char from[32];
    (void)snprintf(from, sizeof(from), "/proc/self/fd/%d", fd);
    return fault_here() ? -1 : linkat(AT_FDCWD, from, dirfd, name, AT_SYMLINK_FOLLOW);
}

enum rc sys_write_all(int fd, const void *data, size_t len, struct err *err)
{
    const uint8_t *p = data;
    while (len > 0) {
        ssize_t n = fault_here() ? -1 : write(fd, p, len);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return err_sys(err, "write");
        }
        p += n;
        len -= (size_t)n;
    }
    return RC_OK;
}

enum rc sys_pwrite_all(int fd, const void *data, size_t len, uint64_t offset, struct err *err)
{
    const uint8_t *p = data;
    while (len > 0) {
        ssize_t n = fault_here() ? -1 : pwrite(fd, p, len, (off_t)offset);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return err_sys(err, "write");
        }
        p += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return RC_OK;
}

enum rc sys_read_full(int fd, void *data, size_t cap, size_t *out_len, struct err *err)
{
    uint8_t *p = data;
    size_t got = 0;
    while (got < cap) {
        ssize_t n = fault_here() ? -1 : read(fd, p + got, cap - got);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return err_sys(err, "read");
        }
        if (n == 0)
            break;
        got += (size_t)n;
    }
    *out_len = got;
    return RC_OK;
}

void fd_closep(int *fd)
{
    if (*fd < 0)
        return;
    int saved = errno;
    (void)close(*fd);
    *fd = -1;
    errno = saved;
}

int fd_steal(int *fd)
{
    int v = *fd;
    *fd = -1;
    return v;
}

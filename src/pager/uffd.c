#include "pager/uffd.h"

#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EVENTS                                                                                     \
    (UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_REMOVE |              \
     UFFD_FEATURE_EVENT_UNMAP)

enum rc uffd_check(struct err *err)
{
    struct uffdio_api api = {.api = UFFD_API, .features = EVENTS};
    CLEANUP(fd_closep) int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOSYS)
        return err_set(err, RC_UNSUPPORTED, "the kernel has no userfaultfd");
    if (fd < 0)
        return err_set(err, RC_DENIED,
                       "userfaultfd needs CAP_SYS_PTRACE, or a seccomp profile "
                       "that allows it");
    if (ioctl(fd, UFFDIO_API, &api) < 0)
        return errno == EPERM
                   ? err_set(err, RC_DENIED, "userfaultfd events of forks need CAP_SYS_PTRACE")
                   : err_set(err, RC_UNSUPPORTED, "the kernel's userfaultfd has no events");
    return RC_OK;
}

static enum uffd_result result_of(int error)
{
    switch (error) {
    case EEXIST:
        return UFFD_THERE;
    case EAGAIN:
        return UFFD_AGAIN;
    case ENOENT:
        return UFFD_NONE;
    case ESRCH:
        return UFFD_GONE;
    default:
        errno = error;
        return UFFD_ERROR;
    }
}

enum uffd_result uffd_copy(int fd, uint64_t address, const void *data, uint64_t len,
                           uint64_t *out_len)
{
    struct uffdio_copy c = {.dst = address, .src = (uint64_t)(uintptr_t)data, .len = len};
    *out_len = 0;
    if (ioctl(fd, UFFDIO_COPY, &c) == 0) {
        *out_len = len;
        return UFFD_DONE;
    }
    int error = errno;
    *out_len = c.copy > 0 ? (uint64_t)c.copy : 0;
    return result_of(error);
}

enum uffd_result uffd_zero(int fd, uint64_t address, uint64_t len)
{
    struct uffdio_zeropage z = {.range = {address, len}};
    return ioctl(fd, UFFDIO_ZEROPAGE, &z) == 0 ? UFFD_DONE : result_of(errno);
}

void uffd_wake(int fd, uint64_t address, uint64_t len)
{
    struct uffdio_range range = {address, len};
    (void)ioctl(fd, UFFDIO_WAKE, &range); /* who is gone need not be woken */
}

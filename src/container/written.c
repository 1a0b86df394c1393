#include "container/written.h"

#include "base/compiler.h"
#include "base/sys.h"
#include "container/fdinfo.h"
#include "container/maps.h"
#include "container/task.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of Linux 6.7; our headers may be older. */
#define WP_UNPOPULATED ((uint64_t)1 << 13)
#define WP_ASYNC ((uint64_t)1 << 15)
#define USER_MODE_ONLY 1U /* needs no privilege; asynchronous protection does not differ */

static bool make_asynchronous(int uffd)
{
    struct uffdio_api api = {.api = UFFD_API, .features = WP_ASYNC | WP_UNPOPULATED};
    return ioctl(uffd, UFFDIO_API, &api) == 0;
}

bool written_can(void)
{
#ifdef __x86_64__ /* elsewhere halt_call() cannot */
    CLEANUP(fd_closep)
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);
    return fd >= 0 && make_asynchronous(fd);
#else
    return false;
#endif
}

/* ---- what writes past the page tables ---- */

static bool may_write(const char *name)
{
    static const char *const known[] = {"/[aio]",          "anon_inode:[io_uring]",
                                        "/dev/nvidia",     "/dev/dri",
                                        "/dev/infiniband", "/dev/vfio",
                                        "/dev/kfd",        "/dev/vhost"};
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strncmp(name, known[i], strlen(known[i])) == 0)
            return true;
    return false;
}

static enum rc refuse(pid_t pid, const char *what, struct err *err)
{
    return err_set(err, RC_UNSUPPORTED, "'%.200s' may write to the memory of process %d unseen",
                   what, (int)pid);
}

static enum rc check_mappings(int task, pid_t pid, struct err *err)
{
    CLEANUP(maps_done) struct maps maps = {0};
    enum rc rc = maps_read(task, false, &maps, err);
    for (size_t i = 0; !rc && i < maps.n; i++)
        if (may_write(maps.list[i].name))
            rc = refuse(pid, maps.list[i].name, err);
    return rc;
}

static enum rc check_descriptors(int task, pid_t pid, struct err *err)
{
    CLEANUP(fdinfo_done) struct fdinfo_list fds = {0};
    enum rc rc = fdinfo_read(task, &fds, err);
    for (size_t i = 0; !rc && i < fds.n; i++) {
        const struct fdinfo *f = &fds.list[i];
        if (f->kind == FD_IO_URING || f->kind == FD_KVM || f->kind == FD_DMABUF ||
            f->kind == FD_USERFAULTFD || strcmp(f->protocol, "XDP") == 0 || may_write(f->target))
            rc = refuse(pid, f->target, err);
    }
    return rc;
}

enum rc written_check(pid_t pid, struct err *err)
{
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    struct task_status status;
    enum rc rc = task_open_proc("/proc", &proc, err);
    if (!rc)
        rc = task_open(proc, pid, &task, err);
    if (!rc)
        rc = task_status_read(task, &status, err);
    if (!rc && status.pinned_bytes)
        rc = err_set(err, RC_UNSUPPORTED, "process %d has pinned memory for a device", (int)pid);
    if (!rc)
        rc = check_mappings(task, pid, err);
    return rc ? rc : check_descriptors(task, pid, err);
}

/* ---- giving ---- */

/* A call in the process; a negative result is an error. */
static enum rc call(struct halt *h, pid_t pid, long number, uint64_t arg, long *out,
                    struct err *err)
{
    uint64_t args[6] = {arg};
    long result = 0;
    enum rc rc = halt_call(h, pid, number, args, &result, err);
    if (rc)
        return rc;
    if (result < 0) {
        errno = (int)-result;
        return err_sys(err, "system call %ld in process %d", number, (int)pid);
    }
    *out = result;
    return RC_OK;
}

static enum rc take_out(pid_t pid, int number, int *out, struct err *err)
{
    CLEANUP(fd_closep) int handle = (int)syscall(SYS_pidfd_open, pid, 0);
    int fd = handle < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, handle, number, 0);
    if (fd < 0)
        return err_sys(err, "take descriptor %d of process %d", number, (int)pid);
    *out = fd;
    return RC_OK;
}

enum rc written_attach(struct halt *h, pid_t pid, int *out, struct err *err)
{
    long number = 0, closed = 0;
    int fd = -1;
    enum rc rc =
        call(h, pid, SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY, &number, err);
    if (rc)
        return rc;
    rc = take_out(pid, (int)number, &fd, err);
    CLEANUP(fd_closep) int uffd = fd;
    enum rc rc2 = call(h, pid, SYS_close, (uint64_t)number, &closed, rc ? NULL : err);
    if (rc || rc2)
        return rc ? rc : rc2;
    if (!make_asynchronous(uffd))
        return err_set(err, RC_UNSUPPORTED,
                       "this kernel cannot protect memory asynchronously (Linux 6.7 can)");
    *out = fd_steal(&uffd);
    return RC_OK;
}

enum rc written_register(int uffd, uint64_t start, uint64_t end, struct err *err)
{
    struct uffdio_register r = {.range = {start, end - start}, .mode = UFFDIO_REGISTER_MODE_WP};
    if (ioctl(uffd, UFFDIO_REGISTER, &r) == 0)
        return RC_OK;
    if (errno == EBUSY)
        return err_set(err, RC_CONFLICT, "the memory at %#jx is watched by somebody else",
                       (uintmax_t)start);
    if (errno == ESRCH || errno == ENOMEM)
        return err_set(err, RC_NOT_FOUND, "the address space is gone");
    return err_set(err, RC_UNSUPPORTED, "the memory at %#jx cannot be watched", (uintmax_t)start);
}

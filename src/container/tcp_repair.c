#include "container/tcp_repair.h"

#include "base/compiler.h"
#include "base/sys.h"
#include "container/fdinfo.h"
#include "container/task.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static enum rc end_of(int process, int number, struct err *err)
{
    int mode = 0, off = 0; /* and the other side is asked how far it is */
    socklen_t len = sizeof(mode);
    CLEANUP(fd_closep) int fd = (int)syscall(SYS_pidfd_getfd, process, number, 0);
    if (fd < 0)
        return errno == EBADF ? RC_OK : err_sys(err, "look at socket %d", number);
    if (getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &mode, &len) < 0 || mode == 0)
        return RC_OK; /* another kind of socket, or as it should be */
    if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)) < 0)
        return err_sys(err, "let the connection of socket %d go on", number);
    return RC_OK;
}

enum rc tcp_repair_end(pid_t pid, struct err *err)
{
    CLEANUP(fdinfo_done) struct fdinfo_list fds = {0};
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    CLEANUP(fd_closep) int process = (int)syscall(SYS_pidfd_open, pid, 0);
    if (process < 0)
        return errno == ESRCH ? err_set(err, RC_NOT_FOUND, "process %d has ended", (int)pid)
                              : err_sys(err, "open process %d", (int)pid);
    enum rc rc = task_open_proc("/proc", &proc, err);
    if (!rc)
        rc = task_open(proc, pid, &task, err);
    if (!rc)
        rc = fdinfo_read(task, &fds, err);
    for (size_t i = 0; !rc && i < fds.n; i++)
        if (fds.list[i].kind == FD_SOCKET)
            rc = end_of(process, fds.list[i].fd, err);
    return rc;
}

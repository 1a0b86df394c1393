#include "criu/lazy.h"

#include "base/compiler.h"
#include "base/sys.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SOCKET_NAME "lazy-pages.socket"
#define FINISHED 0x52535446 /* "FTSR" */

enum rc cr_lazy_listen(int work, int *out_fd, struct err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    CLEANUP(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(err, "make a socket");
    (void)snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/" SOCKET_NAME, work);
    if (sys_unlinkat(work, SOCKET_NAME, 0) < 0 && errno != ENOENT)
        return err_sys(err, "remove an old '%s'", SOCKET_NAME);
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0)
        return err_sys(err, "listen on '%s'", SOCKET_NAME);
    *out_fd = fd_steal(&fd);
    return RC_OK;
}

/* Bytes of the connection, with a descriptor if one comes with them. */
static enum rc receive(int fd, void *data, size_t len, int *out_fd, struct err *err)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec io = {data, len};
    struct msghdr msg = {.msg_iov = &io,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = sizeof(control.space)};
    ssize_t n;
    do
        n = recvmsg(fd, &msg, MSG_WAITALL | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno != ECONNRESET)
        return err_sys(err, "hear from CRIU");
    const struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(out_fd, CMSG_DATA(c), sizeof(int));
    if (n <= 0)
        return err_set(err, RC_CANCELLED, "CRIU has closed its connection to the pager");
    if ((size_t)n < len)
        return err_set(err, RC_INVALID, "CRIU was cut short");
    return RC_OK;
}

enum rc cr_lazy_receive(int connection, struct cr_lazy_message *out, struct err *err)
{
    int32_t number = 0;
    char dummy = 0;
    CLEANUP(fd_closep) int stray = -1;
    CLEANUP(fd_closep) int uffd = -1;
    enum rc rc = receive(connection, &number, sizeof(number), &stray, err);
    if (rc)
        return rc;
    if (stray >= 0 || number == 0)
        return err_set(err, RC_INVALID, "CRIU sent the pager what makes no sense");
    struct cr_lazy_message m = {.kind = CR_LAZY_FINISHED, .uffd = -1};
    if (number < 0)
        m.kind = CR_LAZY_ZOMBIE;
    if (number > 0 && number != FINISHED) {
        rc = receive(connection, &dummy, 1, &uffd, err);
        if (rc)
            return rc;
        if (uffd < 0)
            return err_set(err, RC_INVALID, "CRIU sent no descriptor of process %d", number);
        m = (struct cr_lazy_message){CR_LAZY_TASK, (uint32_t)number, fd_steal(&uffd)};
    }
    *out = m;
    return RC_OK;
}

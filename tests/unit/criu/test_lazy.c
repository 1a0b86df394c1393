#include "base/sys.h"
#include "criu/lazy.h"
#include "harness/test.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* CRIU's side of the connection, by its rules. */
static void send_number(int to, int32_t number)
{
    CHECK(send(to, &number, sizeof(number), 0) == (ssize_t)sizeof(number));
}

static void send_fd(int to, int fd)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    char dummy = 0;
    struct iovec io = {&dummy, 1};
    struct msghdr m = {.msg_iov = &io,
                       .msg_iovlen = 1,
                       .msg_control = control.space,
                       .msg_controllen = sizeof(control.space)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    CHECK(sendmsg(to, &m, 0) == 1);
}

static void make_pair(int *out_criu, int *out_ours)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    *out_criu = pair[0];
    *out_ours = pair[1];
}

TEST(tasks_zombies_and_the_end_are_told_apart)
{
    struct err err = ERR_INIT;
    struct cr_lazy_message m;
    CLEANUP(fd_closep) int criu = -1;
    CLEANUP(fd_closep) int ours = -1;
    CLEANUP(fd_closep) int any = sys_openat(AT_FDCWD, "/dev/null", O_RDONLY, 0);
    make_pair(&criu, &ours);
    send_number(criu, 4711);
    send_fd(criu, any);
    send_number(criu, -12);
    send_number(criu, 0x52535446);
    CHECK_OK(cr_lazy_receive(ours, &m, &err));
    CHECK(m.kind == CR_LAZY_TASK && m.pid == 4711 && m.uffd >= 0);
    fd_closep(&m.uffd);
    CHECK_OK(cr_lazy_receive(ours, &m, &err));
    CHECK(m.kind == CR_LAZY_ZOMBIE && m.uffd == -1);
    CHECK_OK(cr_lazy_receive(ours, &m, &err));
    CHECK(m.kind == CR_LAZY_FINISHED);
}

TEST(what_makes_no_sense_is_refused)
{
    struct err err = ERR_INIT;
    struct cr_lazy_message m;
    CLEANUP(fd_closep) int criu = -1;
    CLEANUP(fd_closep) int ours = -1;
    make_pair(&criu, &ours);
    send_number(criu, 0);
    CHECK_RC(cr_lazy_receive(ours, &m, &err), RC_INVALID);
    send_number(criu, 7);
    CHECK(send(criu, "", 1, 0) == 1); /* no descriptor */
    CHECK_RC(cr_lazy_receive(ours, &m, &err), RC_INVALID);
    CHECK(send(criu, "ab", 2, 0) == 2);
    fd_closep(&criu);
    CHECK_RC(cr_lazy_receive(ours, &m, &err), RC_INVALID);
    CHECK_RC(cr_lazy_receive(ours, &m, &err), RC_CANCELLED);
}

TEST(the_socket_is_where_criu_looks_for_it)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int work = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CLEANUP(fd_closep) int listener = -1;
    CLEANUP(fd_closep) int again = -1;
    CLEANUP(fd_closep) int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_OK(cr_lazy_listen(work, &listener, &err));
    CHECK_OK(cr_lazy_listen(work, &again, &err)); /* what an earlier one has left does not matter */
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    (void)snprintf(a.sun_path, sizeof(a.sun_path), "%s/lazy-pages.socket", test_dir());
    CHECK(connect(client, (struct sockaddr *)&a, sizeof(a)) == 0);
}

#include "base/compiler.h"
#include "base/sys.h"
#include "container/tcp_repair.h"
#include "harness/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

/* Both ends of a connection. */
static void connected(int *out_one, int *out_other)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(at);
    CLEANUP(fd_closep) int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&at, len) == 0);
    CHECK(listen(listener, 1) == 0 && getsockname(listener, (struct sockaddr *)&at, &len) == 0);
    *out_one = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(*out_one >= 0 && connect(*out_one, (struct sockaddr *)&at, len) == 0);
    *out_other = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK(*out_other >= 0);
}

static void repair(int fd)
{
    int on = TCP_REPAIR_ON, queue = TCP_SEND_QUEUE;
    if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0 && errno == EPERM)
        test_skip("machine: no CAP_NET_ADMIN");
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)) == 0);
}

static int is_repaired(int fd)
{
    int mode = -1;
    socklen_t len = sizeof(mode);
    CHECK(getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &mode, &len) == 0);
    return mode;
}

TEST(what_was_written_in_repair_mode_arrives_afterwards)
{
    struct err err = ERR_INIT;
    int a = -1, b = -1;
    char got[8] = "";
    connected(&a, &b);
    CLEANUP(fd_closep) int one = a;
    CLEANUP(fd_closep) int other = b;
    repair(one);
    CHECK_INT(write(one, "hello", 5), 5); /* sent only when the kernel thinks that it was lost */
    CHECK_INT(is_repaired(one), 1);
    CHECK_OK(tcp_repair_end(getpid(), &err));
    CHECK_INT(is_repaired(one), 0);
    CHECK_INT(recv(other, got, 5, MSG_WAITALL), 5);
    CHECK_INT(write(one, "x", 1), 1);
    CHECK_INT(recv(other, got, 1, MSG_WAITALL), 1);
}

TEST(other_sockets_stay_as_they_are)
{
    struct err err = ERR_INIT;
    int a = -1, b = -1, pair[2];
    char got[8] = "";
    connected(&a, &b);
    CLEANUP(fd_closep) int one = a;
    CLEANUP(fd_closep) int other = b;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    CLEANUP(fd_closep) int left = pair[0];
    CLEANUP(fd_closep) int right = pair[1];
    CHECK_OK(tcp_repair_end(getpid(), &err));
    CHECK_INT(write(one, "ab", 2), 2);
    CHECK_INT(read(other, got, sizeof(got)), 2);
    CHECK_INT(write(left, "ab", 2), 2);
    CHECK_INT(read(right, got, sizeof(got)), 2);
}

TEST(who_has_ended_is_told_of)
{
    struct err err = ERR_INIT;
    CHECK_RC(tcp_repair_end(0x3fffffff, &err), RC_NOT_FOUND);
}

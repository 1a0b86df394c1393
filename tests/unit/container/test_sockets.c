#include "base/compiler.h"
#include "base/sys.h"
#include "container/sockets.h"
#include "harness/test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n"

TEST(lines_of_both_families_are_parsed)
{
    static const char v4[] =
        HEAD "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0 "
             "       0 4711 1 ffff 100 0 0 10 0\n";
    static const char v6[] =
        HEAD "   0: 00000000000000000000000001000000:1F91 0000000000000000FFFF00000100007F:0050 "
             "01 00000000:00000003 00:00000000 00000000     0        0 4712 1 ffff\n";
    char text[SOCKETS_TEXT_MAX];
    struct err err = ERR_INIT;
    CLEANUP(sockets_done) struct sockets s = {0};
    CHECK_OK(sockets_parse(v4, strlen(v4), false, &s, &err));
    CHECK_OK(sockets_parse(v6, strlen(v6), true, &s, &err));
    CHECK_INT(s.n, 2);
    CHECK_INT(s.list[0].state, TCP_LISTEN);
    CHECK_INT(s.list[0].pending, 3);
    CHECK_INT(s.list[1].pending, 0); /* unread bytes, as it is no listener */
    sockets_address(&s.list[0].local, s.list[0].local_port, text);
    CHECK_STR(text, "127.0.0.1:8080");
    sockets_address(&s.list[1].local, s.list[1].local_port, text);
    CHECK_STR(text, "[::1]:8081");
    sockets_address(&s.list[1].remote, s.list[1].remote_port, text);
    CHECK_STR(text, "127.0.0.1:80");
    CHECK(sockets_find(&s, 4712) == &s.list[1]);
    CHECK(!sockets_find(&s, 0) && !sockets_find(&s, 1));
}

TEST(lines_that_make_no_sense_are_refused_and_leave_the_list_as_it_was)
{
    static const char *const bad[] = {
        HEAD "x\n",
        HEAD "0: 0100007F1F90 00000000:0000 0A 0:0 0:0 0 0 0 4711\n",
        HEAD "0: 0100007:1F90 00000000:0000 0A 0:0 0:0 0 0 0 4711\n",
        HEAD "0: 0100007F:1F90F 00000000:0000 0A 0:0 0:0 0 0 0 4711\n",
        HEAD "0: 0100007F:1F90 0000000Z:0000 0A 0:0 0:0 0 0 0 4711\n",
        HEAD "0: 0100007F:1F90 00000000:0000 XX 0:0 0:0 0 0 0 4711\n",
        HEAD "0: 0100007F:1F90 00000000:0000 0A 0 0:0 0 0 0 4711\n",
        HEAD "0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0 x\n",
    };
    struct err err = ERR_INIT;
    CLEANUP(sockets_done) struct sockets s = {0};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_RC(sockets_parse(bad[i], strlen(bad[i]), false, &s, &err), RC_CORRUPT);
    CHECK_INT(s.n, 0);
    CHECK_OK(sockets_parse("", 0, false, &s, &err));
}

static const struct socket_tcp *find(const struct sockets *s, int fd)
{
    struct stat st;
    CHECK(fstat(fd, &st) == 0);
    const struct socket_tcp *found = sockets_find(s, st.st_ino);
    if (!found)
        test_fail(__FILE__, __LINE__, "descriptor %d is not listed", fd);
    return found;
}

TEST(both_ends_of_a_connection_find_each_other)
{
    struct err err = ERR_INIT;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    CLEANUP(sockets_done) struct sockets s = {0};
    CLEANUP(fd_closep) int self = sys_openat(AT_FDCWD, "/proc/self", O_RDONLY | O_DIRECTORY, 0);
    CLEANUP(fd_closep) int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CLEANUP(fd_closep) int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(listener, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(listener, 1) == 0 &&
          getsockname(listener, (struct sockaddr *)&a, &len) == 0 &&
          connect(client, (struct sockaddr *)&a, sizeof(a)) == 0);
    CHECK_OK(sockets_read(self, &s, &err));
    CHECK_INT(find(&s, listener)->pending, 1);
    CLEANUP(fd_closep) int server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    sockets_done(&s);
    CHECK_OK(sockets_read(self, &s, &err));
    const struct socket_tcp *one = find(&s, client);
    const struct socket_tcp *two = find(&s, server);
    CHECK_INT(one->state, TCP_ESTABLISHED);
    CHECK(sockets_peer(&s, one) == two && sockets_peer(&s, two) == one);
    CHECK_INT(find(&s, listener)->pending, 0);
}

#include "base/compiler.h"
#include "engine/wires.h"
#include "harness/test.h"

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <unistd.h>

#define NET_BIND_SERVICE (1ULL << 10)
#define NET_ADMIN (1ULL << 12)
#define NET_RAW (1ULL << 13)

static void check(const struct wire *w, uint64_t needed)
{
    struct err err = ERR_INIT;
    CHECK_RC(wire_check(w, ~needed, 1024, &err), RC_DENIED);
    CHECK_OK(wire_check(w, needed, 1024, &err));
}

TEST(common_sockets_are_everybodys)
{
    struct err err = ERR_INIT;
    const struct wire list[] = {{.domain = AF_UNIX, .type = SOCK_SEQPACKET},
                                {.domain = AF_INET, .type = SOCK_STREAM, .port = 1024},
                                {.domain = AF_INET6, .type = SOCK_DGRAM, .priority = 6},
                                {.domain = AF_NETLINK, .protocol = NETLINK_ROUTE}};
    for (size_t i = 0; i < ARRAY_LEN(list); i++)
        CHECK_OK(wire_check(&list[i], 0, 1024, &err));
}

TEST(what_needs_rights_needs_them)
{
    check(&(struct wire){.domain = AF_PACKET, .type = SOCK_RAW}, NET_RAW);
    check(&(struct wire){.domain = AF_INET, .type = SOCK_RAW}, NET_RAW);
    check(&(struct wire){.domain = AF_INET6, .type = SOCK_RAW}, NET_RAW);
    check(&(struct wire){.domain = AF_INET, .type = SOCK_STREAM, .port = 1023}, NET_BIND_SERVICE);
    check(&(struct wire){.domain = AF_INET, .type = SOCK_STREAM, .priority = 7}, NET_ADMIN);
}

TEST(marks_need_one_of_two_rights)
{
    struct err err = ERR_INIT;
    const struct wire mark = {.domain = AF_INET, .type = SOCK_DGRAM, .mark = 1},
                      bent = {.domain = AF_INET6, .type = SOCK_DGRAM, .transparent = true};
    CHECK_RC(wire_check(&mark, ~(NET_ADMIN | NET_RAW), 0, &err), RC_DENIED);
    CHECK_RC(wire_check(&bent, ~(NET_ADMIN | NET_RAW), 0, &err), RC_DENIED);
    CHECK_OK(wire_check(&mark, NET_RAW, 0, &err));
    CHECK_OK(wire_check(&bent, NET_ADMIN, 0, &err));
}

TEST(what_is_not_known_is_refused)
{
    struct err err = ERR_INIT;
    const struct wire audit = {.domain = AF_NETLINK, .protocol = NETLINK_AUDIT},
                      other = {.domain = AF_VSOCK, .type = SOCK_STREAM};
    CHECK_RC(wire_check(&audit, ~0ULL, 0, &err), RC_DENIED);
    CHECK_RC(wire_check(&other, ~0ULL, 0, &err), RC_DENIED);
}

TEST(what_a_socket_is_the_kernel_says)
{
    struct err err = ERR_INIT;
    struct wire w;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int sk = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_INT(bind(sk, (struct sockaddr *)&a, sizeof(a)), 0);
    CHECK_INT(getsockname(sk, (struct sockaddr *)&a, &len), 0);
    CHECK_OK(wire_read(sk, &w, &err));
    CHECK(w.domain == AF_INET && w.type == SOCK_STREAM && !w.mark && !w.transparent);
    CHECK_INT(w.port, ntohs(a.sin_port));
    (void)close(sk);
    CHECK_RC(wire_read(sk, &w, &err), RC_IO);
}

#include "engine/wires.h"

#include "base/sys.h"

#include <arpa/inet.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <netinet/in.h>

#define PRIORITY_FOR_ALL 6 /* of SO_PRIORITY */

static uint32_t number(int sk, int level, int option)
{
    int value = 0;
    socklen_t len = sizeof(value);
    return getsockopt(sk, level, option, &value, &len) < 0 ? 0 : (uint32_t)value;
}

static uint16_t port_of(int sk)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_storage all;
    } a = {.any = {.sa_family = AF_UNSPEC}};
    socklen_t len = sizeof(a);
    if (getsockname(sk, &a.any, &len) < 0)
        return 0;
    if (a.any.sa_family == AF_INET)
        return ntohs(a.v4.sin_port);
    return a.any.sa_family == AF_INET6 ? ntohs(a.v6.sin6_port) : 0;
}

enum rc wire_read(int sk, struct wire *out, struct err *err)
{
    struct wire w = {.domain = AF_UNSPEC};
    socklen_t one = sizeof(w.domain), two = sizeof(w.type), three = sizeof(w.protocol);
    if (getsockopt(sk, SOL_SOCKET, SO_DOMAIN, &w.domain, &one) < 0 ||
        getsockopt(sk, SOL_SOCKET, SO_TYPE, &w.type, &two) < 0 ||
        getsockopt(sk, SOL_SOCKET, SO_PROTOCOL, &w.protocol, &three) < 0)
        return err_sys(err, "look at a socket");
    w.mark = number(sk, SOL_SOCKET, SO_MARK);
    w.priority = number(sk, SOL_SOCKET, SO_PRIORITY);
    if (w.domain == AF_INET)
        w.transparent = number(sk, IPPROTO_IP, IP_TRANSPARENT) != 0;
    else if (w.domain == AF_INET6)
        w.transparent = number(sk, IPPROTO_IPV6, IPV6_TRANSPARENT) != 0;
    if ((w.domain == AF_INET || w.domain == AF_INET6) && w.type != SOCK_RAW)
        w.port = port_of(sk);
    *out = w;
    return RC_OK;
}

static bool has(uint64_t caps, unsigned cap)
{
    return caps >> cap & 1;
}

/* What everybody may make, but for options. */
static bool is_common(const struct wire *w)
{
    if (w->domain == AF_UNIX)
        return true;
    if (w->domain == AF_NETLINK)
        return w->protocol == NETLINK_ROUTE;
    return (w->domain == AF_INET || w->domain == AF_INET6) &&
           (w->type == SOCK_STREAM || w->type == SOCK_DGRAM);
}

static enum rc check_kind(const struct wire *w, uint64_t caps, struct err *err)
{
    bool raw = w->domain == AF_PACKET ||
               ((w->domain == AF_INET || w->domain == AF_INET6) && w->type == SOCK_RAW);
    if (is_common(w) || (raw && has(caps, CAP_NET_RAW)))
        return RC_OK;
    if (raw)
        return err_set(err, RC_DENIED,
                       "it has a %s socket, and this container does not have NET_RAW",
                       w->domain == AF_PACKET ? "packet" : "raw");
    return err_set(err, RC_DENIED,
                   "it has a socket that may not be restored for it (family %d, protocol %d)",
                   w->domain, w->protocol);
}

enum rc wire_check(const struct wire *w, uint64_t caps, unsigned lowest, struct err *err)
{
    bool admin = has(caps, CAP_NET_ADMIN), raw = has(caps, CAP_NET_RAW);
    enum rc rc = check_kind(w, caps, err);
    if (rc)
        return rc;
    if ((w->mark || w->transparent) && !admin && !raw)
        return err_set(err, RC_DENIED,
                       "it has a socket with options (mark, transparent) that this container could "
                       "not set: they need NET_ADMIN");
    if (w->priority > PRIORITY_FOR_ALL && !admin)
        return err_set(err, RC_DENIED,
                       "it has a socket of priority %u, and this container does not have NET_ADMIN",
                       w->priority);
    if (w->port && w->port < lowest && !has(caps, CAP_NET_BIND_SERVICE))
        return err_set(err, RC_DENIED,
                       "it has port %u, and this container does not have NET_BIND_SERVICE",
                       w->port);
    return RC_OK;
}

#include "engine/ports.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/sockets.h"
#include "criu/listeners.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PORTS_DIR "/run/chrek/ports"
#define PAUSE_NS 20000000L

static bool is_v4(const struct in6_addr *a)
{
    return IN6_IS_ADDR_V4MAPPED(a);
}

static bool is_any(const struct in6_addr *a)
{
    static const struct in6_addr any4 = {.s6_addr = {[10] = 0xff, [11] = 0xff}};
    return IN6_IS_ADDR_UNSPECIFIED(a) || memcmp(a, &any4, sizeof(any4)) == 0;
}

/* Whether the kernel has never both, as far as can be told: whether the other one is open for IPv6
 * only is not shown. */
static bool collide(const struct cr_listener *ours, const struct socket_tcp *other)
{
    if (other->state != TCP_LISTEN || other->local_port != ours->port)
        return false;
    if (is_v4(&ours->address) == is_v4(&other->local))
        return is_any(&ours->address) || is_any(&other->local) ||
               memcmp(&ours->address, &other->local, sizeof(other->local)) == 0;
    return is_v4(&other->local) && is_any(&ours->address) && !ours->v6_only;
}

static enum rc check(const struct cr_listener *list, size_t n, int task, struct err *err)
{
    CLEANUP(sockets_done) struct sockets others = {0};
    char address[SOCKETS_TEXT_MAX];
    if (sockets_read(task, &others, NULL) != RC_OK)
        return RC_OK; /* CRIU will see */
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < others.n; k++) {
            if (list[i].shares || !collide(&list[i], &others.list[k]))
                continue;
            sockets_address(&list[i].address, list[i].port, address);
            return err_set(err, RC_CONFLICT,
                           "an address that the program listens on is taken: %s; end what listens "
                           "there (ss -ltnp shows it), or start the program with --net private "
                           "before its checkpoint",
                           address);
        }
    return RC_OK;
}

static enum rc lock_port(unsigned long long net, uint16_t port, uint64_t deadline, int *out,
                         struct err *err)
{
    char path[80];
    struct timespec pause = {0, PAUSE_NS};
    (void)snprintf(path, sizeof(path), PORTS_DIR "/%llu-%u", net, (unsigned)port);
    CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(err, "open '%s'", path);
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return err_sys(err, "lock '%s'", path);
        if (deadline && clock_now() > deadline)
            return err_set(err, RC_TIMEOUT, "another restore that needs port %u takes too long",
                           (unsigned)port);
        (void)nanosleep(&pause, NULL);
    }
    *out = fd_steal(&fd);
    return RC_OK;
}

/* In the order of their numbers, so that no two wait for each other. */
static enum rc lock_ports(const struct cr_listener *list, size_t n, int task, uint64_t deadline,
                          struct ports *p, struct err *err)
{
    struct stat net;
    if (fstatat(task, "ns/net", &net, 0) < 0 || fs_mkdirs(PORTS_DIR, 0755, NULL) != RC_OK ||
        access(PORTS_DIR, W_OK) < 0)
        return RC_OK; /* a file system that cannot be written: then there are no others here */
    p->locks = mem_alloc((n + 1) * sizeof(*p->locks));
    for (size_t i = 0; i < n; i++) {
        if (list[i].shares || (i && list[i].port == list[i - 1].port))
            continue;
        enum rc rc = lock_port(net.st_ino, list[i].port, deadline, &p->locks[p->n], err);
        if (rc)
            return rc;
        p->n++;
    }
    return RC_OK;
}

enum rc ports_claim(int images, int task, uint64_t deadline, struct ports *out, struct err *err)
{
    CLEANUP(mem_freep) struct cr_listener *list = NULL;
    CLEANUP(ports_done) struct ports p = PORTS_INIT;
    size_t n = 0;
    enum rc rc = cr_listeners_load(images, &list, &n, err);
    if (!rc && n)
        rc = lock_ports(list, n, task, deadline, &p, err);
    if (!rc && n)
        rc = check(list, n, task, err);
    if (rc)
        return rc;
    *out = p;
    p = (struct ports)PORTS_INIT;
    return RC_OK;
}

void ports_done(struct ports *p)
{
    for (size_t i = 0; i < p->n; i++)
        fd_closep(&p->locks[i]);
    free(p->locks);
    *p = (struct ports)PORTS_INIT;
}

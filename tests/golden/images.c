/* The program of which tests/golden/images holds a checkpoint; see README.md. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>
static void *idle(void *a)
{
    for (;;)
        pause();
    return a;
}
int main(void)
{
    int one[2];
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons(18642), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(18643)};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    pthread_t t;
    pipe(one);                                /* 3 4 */
    socketpair(AF_UNIX, SOCK_STREAM, 0, one); /* 5 6 */
    int s = socket(AF_INET, SOCK_STREAM, 0);  /* 7 */
    bind(s, (void *)&in, sizeof in);
    listen(s, 5);
    int u = socket(AF_INET6, SOCK_DGRAM, 0); /* 8 */
    bind(u, (void *)&in6, sizeof in6);
    int x = socket(AF_UNIX, SOCK_STREAM, 0); /* 9 */
    memcpy(un.sun_path, "\0golden", 7);
    bind(x, (void *)&un, sizeof(sa_family_t) + 7);
    listen(x, 5);
    eventfd(7, 0);                      /* 10 */
    epoll_create1(0);                   /* 11 */
    timerfd_create(CLOCK_MONOTONIC, 0); /* 12 */
    int m = memfd_create("golden", 0);  /* 13 */
    ftruncate(m, 8192);
    char *p = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, m, 0);
    p[0] = 1;
    p = mmap(0, 16384, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(p, 2, 8192);
    open("/etc/hostname", O_RDONLY); /* 14 */
    if (fork() == 0) {
        setsid();
        setgid(65534);
        setuid(65534);
        for (;;)
            pause();
    }
    pthread_create(&t, 0, idle, 0);
    for (;;)
        pause();
}

#include "agent/caller.h"
#include "base/compiler.h"
#include "base/sys.h"
#include "harness/test.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

TEST(ids_are_found_in_the_names_of_control_groups)
{
    static const char text[] =
        "9:name=systemd:/kubepods/burstable/pod1f2e/" ID "\n"
        "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-" ID ".scope\n"
        "1:x:/" ID "0\n2:y:/" ID "z\n3:z:/abc\n";
    char id[65];
    const char *at = caller_next_id(text, id);
    CHECK(at);
    CHECK_STR(id, ID);
    at = caller_next_id(at, id);
    CHECK(at);
    CHECK_STR(id, ID);
    CHECK(!caller_next_id(at, id));
    CHECK(!caller_next_id("", id));
}

/* None of these needs a runtime to be asked. */
TEST(who_says_that_it_is_somebody_else_is_refused)
{
    struct err err = ERR_INIT;
    struct caller c = {.pid = 0};
    int sk[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sk) == 0);
    pid_t child = fork();
    if (child == 0) {
        (void)pause();
        _exit(0);
    }
    CLEANUP(fd_closep) int theirs = (int)syscall(SYS_pidfd_open, child, 0);
    CLEANUP(fd_closep) int ours = (int)syscall(SYS_pidfd_open, getpid(), 0);
    CHECK_RC(caller_find(NULL, sk[0], theirs, &c, &err), RC_DENIED);
    CHECK_RC(caller_find(NULL, sk[0], sk[1], &c, &err), RC_INVALID);
    (void)kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK_RC(caller_find(NULL, sk[0], theirs, &c, &err), RC_NOT_FOUND);
    if (getpid() != 1)
        CHECK_RC(caller_find(NULL, sk[0], ours, &c, &err), RC_DENIED);
    CHECK(!c.pid && !c.container.id);
    (void)close(sk[0]);
    (void)close(sk[1]);
}

#include "base/compiler.h"
#include "base/sys.h"
#include "container/place.h"
#include "harness/test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int pidfd_of(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

TEST(a_descriptor_tells_which_process_it_holds)
{
    struct err err = ERR_INIT;
    pid_t pid = 7;
    CLEANUP(fd_closep) int self = pidfd_of(getpid());
    CHECK_OK(place_pid_of(self, &pid, &err));
    CHECK_INT(pid, getpid());
    CHECK_RC(place_pid_of(STDERR_FILENO, &pid, &err), RC_INVALID);
}

TEST(a_process_that_has_ended_is_nobody)
{
    struct err err = ERR_INIT;
    struct place p = PLACE_NOTHING;
    pid_t pid = fork(), found = 7;
    if (pid == 0) {
        (void)pause();
        _exit(0);
    }
    CLEANUP(fd_closep) int fd = pidfd_of(pid);
    CHECK_OK(place_pid_of(fd, &found, &err));
    (void)kill(pid, SIGKILL);
    CHECK(waitpid(pid, NULL, 0) == pid);
    CHECK_RC(place_pid_of(fd, &found, &err), RC_NOT_FOUND);
    CHECK_RC(place_open(fd, "/nowhere/sbin/criu", &p, &err), RC_NOT_FOUND);
    CHECK_INT(found, pid);
    CHECK_INT(p.pid, 0);
}

TEST(a_process_of_our_own_namespaces_is_no_place)
{
    struct err err = ERR_INIT;
    struct place p = PLACE_NOTHING;
    CLEANUP(fd_closep) int self = pidfd_of(getpid());
    CHECK_RC(place_open(self, "/nowhere/sbin/criu", &p, &err), RC_INVALID);
    CHECK_INT(p.pid, 0);
    CHECK(fcntl(self, F_GETFD) >= 0); /* still ours */
}

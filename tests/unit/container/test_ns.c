#include "base/compiler.h"
#include "base/sys.h"
#include "container/ns.h"
#include "container/task.h"
#include "harness/test.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int open_task(pid_t pid)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int proc = -1;
    int task = -1;
    CHECK_OK(task_open_proc("/proc", &proc, &err));
    CHECK_OK(task_open(proc, pid, &task, &err));
    return task;
}

static pid_t start(int flags)
{
    int ready[2];
    char byte = 0;
    CHECK(pipe2(ready, O_CLOEXEC) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        byte = unshare(flags) == 0 ? 1 : 0;
        (void)!write(ready[1], &byte, 1);
        for (;;)
            (void)pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    (void)close(ready[0]);
    (void)close(ready[1]);
    if (!byte)
        test_skip("machine: may not make namespaces");
    return pid;
}

static void end(pid_t pid)
{
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
}

TEST(what_differs_and_what_is_shared_is_told)
{
    struct err err = ERR_INIT;
    struct ns_set ours, theirs;
    pid_t pid = start(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID);
    CLEANUP(fd_closep) int self = open_task(getpid());
    CLEANUP(fd_closep) int other = open_task(pid);
    CHECK_OK(ns_read(self, &ours, &err));
    CHECK_OK(ns_read(other, &theirs, &err));
    CHECK(ns_differ(&ours, &theirs, NS_MNT) && !ns_same(&ours, &theirs, NS_MNT));
    CHECK(ns_differ(&ours, &theirs, NS_UTS));
    CHECK(ns_same(&ours, &theirs, NS_PID));
    /* Until its first child is born the namespace for children is empty, and has no name. */
    CHECK(!ns_same(&ours, &theirs, NS_PID_CHILDREN));
    CHECK(ns_same(&ours, &theirs, NS_NET) && !ns_differ(&ours, &theirs, NS_NET));
    end(pid);
}

TEST(a_zombie_has_unknown_namespaces)
{
    struct err err = ERR_INIT;
    struct ns_set set;
    siginfo_t info;
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0);
    CLEANUP(fd_closep) int task = open_task(pid);
    CHECK_OK(ns_read(task, &set, &err));
    CHECK_INT(set.id[NS_MNT].ino, 0);
    CHECK(!ns_same(&set, &set, NS_MNT) && !ns_differ(&set, &set, NS_MNT));
    CHECK(waitpid(pid, NULL, 0) == pid);
    int fd = -1;
    CHECK_RC(ns_open(task, NS_MNT, &fd, &err), RC_NOT_FOUND);
    CHECK_RC(ns_read(task, &set, &err), RC_NOT_FOUND);
    CHECK_INT(fd, -1);
}

TEST(an_opened_namespace_is_the_one_that_was_read)
{
    struct err err = ERR_INIT;
    struct ns_set set;
    struct stat st;
    CLEANUP(fd_closep) int self = open_task(getpid());
    CHECK_OK(ns_read(self, &set, &err));
    for (int i = 0; i < NS_COUNT_; i++) {
        CLEANUP(fd_closep) int fd = -1;
        enum rc rc = ns_open(self, (enum ns_kind)i, &fd, &err);
        CHECK(ns_name((enum ns_kind)i) && ns_flag((enum ns_kind)i));
        if (rc == RC_UNSUPPORTED)
            continue;
        CHECK_OK(rc);
        CHECK(fstat(fd, &st) == 0 && st.st_ino == set.id[i].ino);
    }
}

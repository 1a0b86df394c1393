#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/cgroup.h"
#include "container/task.h"
#include "harness/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

TEST(hybrid_and_unified_hierarchies_are_parsed)
{
    static const char text[] = "9:name=systemd:/a:b\n4:cpu,cpuacct:/\n0::/user.slice/x\n";
    struct err err = ERR_INIT;
    CLEANUP(cgroups_done) struct cgroups c = {0};
    CHECK_OK(cgroups_parse(text, strlen(text), &c, &err));
    CHECK_INT(c.n, 3);
    CHECK(cgroups_v2(&c) == &c.list[2]);
    CHECK(cgroups_v1(&c, "cpuacct") == &c.list[1]);
    CHECK(cgroups_v1(&c, "name=systemd") == &c.list[0]);
    CHECK_STR(c.list[0].path, "/a:b");
    CHECK_STR(c.list[2].path, "/user.slice/x");
    CHECK(!cgroups_v1(&c, "acct") && !cgroups_v1(&c, "memory"));
}

TEST(a_machine_without_cgroups_has_none)
{
    struct err err = ERR_INIT;
    CLEANUP(cgroups_done) struct cgroups c = {0};
    CHECK_OK(cgroups_parse("", 0, &c, &err));
    CHECK_INT(c.n, 0);
    CHECK(!cgroups_v2(&c));
}

TEST(lines_that_make_no_sense_are_refused)
{
    static const char *const bad[] = {"x", "0:/", "0::x", "x::/", "99999999999::/", "0::\n", "\n"};
    struct err err = ERR_INIT;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct cgroups c = {.n = 3};
        CHECK_RC(cgroups_parse(bad[i], strlen(bad[i]), &c, &err), RC_CORRUPT);
        CHECK_INT(c.n, 3);
    }
}

static int open_task(pid_t pid)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int proc = -1;
    int task = -1;
    CHECK_OK(task_open_proc("/proc", &proc, &err));
    CHECK_OK(task_open(proc, pid, &task, &err));
    return task;
}

static pid_t start(void)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        for (;;)
            (void)pause();
    return pid;
}

static void end(pid_t pid)
{
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
}

/* A new group below ours, in the first hierarchy that lets us make one; its directory. */
static int make_group(int self, const struct cgroups *ours, const char *name)
{
    struct err err = ERR_INIT;
    for (size_t i = 0; i < ours->n; i++) {
        int dir = -1;
        if (cgroup_open(self, &ours->list[i], &dir, &err) != RC_OK)
            continue;
        if (mkdirat(dir, name, 0755) == 0)
            return dir;
        (void)close(dir);
    }
    test_skip("machine: no cgroup can be made");
}

static void put(int dir, const char *name, pid_t pid)
{
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/cgroup.procs", name);
    CLEANUP(mem_freep) char *text = mem_asprintf("%d", (int)pid);
    CLEANUP(fd_closep) int fd = openat(dir, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) {
        (void)unlinkat(dir, name, AT_REMOVEDIR);
        test_skip("machine: no process can be put into a cgroup");
    }
}

static bool are_equal(const struct cgroups *a, const struct cgroups *b)
{
    bool equal = a->n == b->n;
    for (size_t i = 0; equal && i < a->n; i++)
        equal = strcmp(a->list[i].path, b->list[i].path) == 0;
    return equal;
}

TEST(a_process_is_put_beside_another)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *name = mem_asprintf("chrek-test-%d", (int)getpid());
    CLEANUP(cgroups_done) struct cgroups ours = {0};
    CLEANUP(cgroups_done) struct cgroups a = {0};
    CLEANUP(cgroups_done) struct cgroups b = {0};
    CLEANUP(cgroups_done) struct cgroups c = {0};
    CLEANUP(fd_closep) int self = open_task(getpid());
    CHECK_OK(cgroups_read(self, &ours, &err));
    CLEANUP(fd_closep) int dir = make_group(self, &ours, name);
    pid_t model = start(), pid = start();
    CLEANUP(fd_closep) int like = open_task(model);
    CLEANUP(fd_closep) int other = open_task(pid);
    put(dir, name, model);
    CHECK_OK(cgroups_read(like, &a, &err));
    CHECK_OK(cgroups_read(other, &b, &err));
    enum rc joined = cgroup_join(self, pid, like, &err);
    enum rc again = cgroup_join(self, pid, like, &err);
    CHECK_OK(cgroups_read(other, &c, &err));
    end(model);
    end(pid);
    for (int i = 0; i < 100 && unlinkat(dir, name, AT_REMOVEDIR) < 0 && errno == EBUSY; i++)
        (void)usleep(10000);
    CHECK_OK(joined);
    CHECK_OK(again);
    CHECK(!are_equal(&a, &b));
    CHECK(are_equal(&a, &c));
}

TEST(no_such_process_cannot_be_put_anywhere)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int self = open_task(getpid());
    CHECK_RC(cgroup_join(self, 0x3fffffff, self, &err), RC_NOT_FOUND);
}

TEST(a_group_that_is_not_mounted_or_outside_is_not_found)
{
    struct err err = ERR_INIT;
    char none[] = "no-such-controller", path[] = "/", outside[] = "/../x", empty[] = "";
    int fd = -1;
    CLEANUP(fd_closep) int self = open_task(getpid());
    struct cgroup g = {.hierarchy = 7, .controllers = none, .path = path};
    CHECK_RC(cgroup_open(self, &g, &fd, &err), RC_NOT_FOUND);
    g = (struct cgroup){.hierarchy = 0, .controllers = empty, .path = outside};
    CHECK_RC(cgroup_open(self, &g, &fd, &err), RC_NOT_FOUND);
    CHECK_INT(fd, -1);
}

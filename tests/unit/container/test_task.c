#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/task.h"
#include "harness/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int open_proc(void)
{
    struct err err = ERR_INIT;
    int proc = -1;
    CHECK_OK(task_open_proc("/proc", &proc, &err));
    return proc;
}

static int open_task(pid_t pid)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int proc = open_proc();
    int task = -1;
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

#define STAT                                                                                       \
    "4711 (a) b) (c) S 12 34 56 34816 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 123456 789 10 "          \
    "18446744073709551615 1 1 0\n"

static void check_bad_stat(const char *text)
{
    struct err err = ERR_INIT;
    struct task_stat t = {.pid = 99};
    CHECK_RC(task_stat_parse(text, strlen(text), &t, &err), RC_CORRUPT);
    CHECK_INT(t.pid, 99);
}

TEST(stat_is_parsed_with_a_name_that_holds_anything)
{
    struct err err = ERR_INIT;
    struct task_stat t;
    CHECK_OK(task_stat_parse(STAT, strlen(STAT), &t, &err));
    CHECK_INT(t.pid, 4711);
    CHECK_STR(t.name, "a) b) (c");
    CHECK_INT(t.state, 'S');
    CHECK_INT(t.ppid, 12);
    CHECK_INT(t.pgid, 34);
    CHECK_INT(t.sid, 56);
    CHECK_INT(t.tty, 34816);
    CHECK_INT(t.flags, 4194560);
    CHECK_INT(t.threads, 9);
    CHECK_INT(t.start_ticks, 123456);
    CHECK_INT(t.rss_pages, 10);
    CHECK(!task_is_kernel_thread(&t));
}

TEST(a_stat_that_makes_no_sense_is_refused)
{
    char text[sizeof(STAT)] = STAT;
    check_bad_stat("");
    check_bad_stat("4711");
    check_bad_stat("4711 )a( S 1");
    check_bad_stat("x (a) S 1 2 3");
    check_bad_stat("4711 (a) SS 1 2 3");
    check_bad_stat("99999999999 (a) S 1 2 3");
    check_bad_stat("4711 (a)");
    *strstr(text, "123456") = 'x';
    check_bad_stat(text);
    text[60] = '\0';
    check_bad_stat(text);
}

TEST(our_own_stat_is_right)
{
    struct err err = ERR_INIT;
    struct task_stat t;
    CLEANUP(fd_closep) int task = open_task(getpid());
    CHECK(prctl(PR_SET_NAME, "a) R (b") == 0);
    CHECK_OK(task_stat_read(task, &t, &err));
    CHECK_INT(t.pid, getpid());
    CHECK_INT(t.ppid, getppid());
    CHECK_INT(t.sid, getsid(0));
    CHECK_STR(t.name, "a) R (b");
    CHECK_INT(t.threads, TEST_EXTRA_THREAD ? 2 : 1);
    CHECK(t.start_ticks > 0 && t.rss_pages > 0);
}

#define STATUS                                                                                     \
    "Name:\tmy name\nState:\tT (stopped)\nTgid:\t5\nPid:\t5\nPPid:\t1\nTracerPid:\t9\n"            \
    "Uid:\t1\t2\t3\t4294967295\nGid:\t5\t6\t7\t8\nNSpid:\t5\t302\t1\nNSsid:\t5\t0\n"               \
    "Kthread:\t0\nVmLck:\t      12 kB\nHugetlbPages:\t2048 kB\nThreads:\t3\n"                      \
    "CapInh:\t0000000000000000\nCapPrm:\t000001fffeffffff\nCapEff:\t0000000000000001\n"            \
    "CapBnd:\tffffffffffffffff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"          \
    "Seccomp_filters:\t4\nSomething:\tnew\n"

static void check_bad_status(const char *text)
{
    struct err err = ERR_INIT;
    struct task_status t;
    CHECK_RC(task_status_parse(text, strlen(text), &t, &err), RC_CORRUPT);
}

TEST(status_is_parsed)
{
    struct err err = ERR_INIT;
    struct task_status t;
    CHECK_OK(task_status_parse(STATUS, strlen(STATUS), &t, &err));
    CHECK_STR(t.name, "my name");
    CHECK_INT(t.state, 'T');
    CHECK_INT(t.pid, 5);
    CHECK_INT(t.tracer, 9);
    CHECK_INT(t.uid[2], 3);
    CHECK_INT(t.uid[3], 4294967295U);
    CHECK_INT(t.gid[0], 5);
    CHECK_INT(t.n_ns_pid, 3);
    CHECK_INT(task_inner_pid(&t), 1);
    CHECK(t.has_inner_sid && t.inner_sid == 0);
    CHECK_INT(t.locked_bytes, 12 * 1024);
    CHECK_INT(t.hugetlb_bytes, 2 << 20);
    CHECK_INT(t.caps[TASK_CAP_EFF], 1);
    CHECK(t.caps[TASK_CAP_BND] == UINT64_MAX);
    CHECK(t.no_new_privs && !t.kernel_thread);
    CHECK_INT(t.seccomp, 2);
    CHECK_INT(t.seccomp_filters, 4);
}

TEST(an_old_kernels_status_has_less)
{
    struct err err = ERR_INIT;
    struct task_status t;
    const char *text = "Name:\tx\nState:\tS (sleeping)\nPid:\t7\n";
    CHECK_OK(task_status_parse(text, strlen(text), &t, &err));
    CHECK_INT(task_inner_pid(&t), 7);
    CHECK(!t.has_inner_sid);
}

TEST(a_status_that_makes_no_sense_is_refused)
{
    check_bad_status("");
    check_bad_status("Name:\tx\nState:\tS\n");
    check_bad_status("Name:\tx\nPid:\t5\n");
    check_bad_status("State:\tS\nPid:\t5\n");
    check_bad_status("Name:\tx\nState:\tS\nPid:\t-5\n");
    check_bad_status("Name:\tx\nState:\tS\nPid:\t5\nUid:\t1 2 3\n");
    check_bad_status("Name:\tx\nState:\tS\nPid:\t5\nCapEff:\txyz\n");
    check_bad_status("Name:\tx\nState:\tS\nPid:\t5\nVmLck:\t18446744073709551615 kB\n");
    check_bad_status("Name:\tx\nState:\tS\nPid:\t5\nNSpid:\t1 x\n");
    check_bad_status(
        "Name:\tx\nState:\tS\nPid:\t5\nNSpid:\t1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 "
        "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n");
    check_bad_status("Name:\tx\nState:\tSleeping\nPid:\t5\n");
}

TEST(our_own_status_is_right)
{
    struct err err = ERR_INIT;
    struct task_status t;
    CLEANUP(fd_closep) int task = open_task(getpid());
    CHECK(prctl(PR_SET_NAME, "two\nlines:\t7") == 0);
    CHECK_OK(task_status_read(task, &t, &err));
    CHECK_STR(t.name, "two\\nlines:\t7");
    CHECK_INT(t.pid, getpid());
    CHECK_INT(t.uid[0], getuid());
    CHECK_INT(task_inner_pid(&t), getpid());
    CHECK(t.rss_bytes > 0);
}

TEST(a_task_that_has_ended_is_not_found_even_if_its_pid_lives_on)
{
    struct err err = ERR_INIT;
    struct task_stat stat;
    struct task_status status;
    char *link = NULL, **list = NULL;
    pid_t *tids = NULL;
    size_t n = 0;
    pid_t pid = start();
    CLEANUP(fd_closep) int task = open_task(pid);
    CHECK_OK(task_stat_read(task, &stat, &err));
    end(pid);
    CHECK_RC(task_stat_read(task, &stat, &err), RC_NOT_FOUND);
    CHECK_RC(task_status_read(task, &status, &err), RC_NOT_FOUND);
    CHECK_RC(task_link(task, "exe", &link, &err), RC_NOT_FOUND);
    CHECK_RC(task_list(task, "cmdline", &list, &err), RC_NOT_FOUND);
    CHECK_RC(task_threads(task, &tids, &n, &err), RC_NOT_FOUND);
    CHECK_STR(err.msg, "the process has ended");
}

TEST(no_such_process_and_no_such_file_are_not_found)
{
    struct err err = ERR_INIT;
    int task = -1;
    CLEANUP(fd_closep) int proc = open_proc();
    CLEANUP(fd_closep) int self = open_task(getpid());
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CHECK_RC(task_open(proc, 0x3fffffff, &task, &err), RC_NOT_FOUND);
    CHECK_RC(task_open(proc, 0, &task, &err), RC_NOT_FOUND);
    CHECK_RC(task_open(proc, -3, &task, &err), RC_NOT_FOUND);
    CHECK_STR(err.msg, "no process -3");
    buf_adds(&text, "before");
    CHECK_RC(task_read(self, "no-such-file", &text, &err), RC_NOT_FOUND);
    CHECK_STR(buf_str(&text), "before");
    CHECK_INT(task, -1);
}

TEST(only_a_proc_file_system_is_taken)
{
    struct err err = ERR_INIT;
    int proc = -1;
    CHECK_RC(task_open_proc(test_dir(), &proc, &err), RC_INVALID);
    CHECK_RC(task_open_proc("/no/such/dir", &proc, &err), RC_NOT_FOUND);
    CHECK_INT(proc, -1);
}

TEST(command_line_and_environment_are_lists)
{
    struct err err = ERR_INIT;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        char *argv[] = {(char[]){"sleep"}, (char[]){"100"}, NULL};
        char *env[] = {(char[]){"A=1"}, (char[]){"EMPTY="}, NULL};
        (void)execve("/bin/sleep", argv, env);
        _exit(127);
    }
    CLEANUP(fd_closep) int task = open_task(pid);
    CLEANUP(mem_freep) char *exe = NULL;
    for (int i = 0; i < 500 && (!exe || !strstr(exe, "bin/")); i++) {
        (void)usleep(1000);
        mem_freep(&exe);
        CHECK_OK(task_link(task, "exe", &exe, &err));
    }
    CLEANUP(task_list_freep) char **args = NULL;
    CLEANUP(task_list_freep) char **env = NULL;
    for (int i = 0; i < 500 && (!args || !args[0] || !args[1]); i++) {
        (void)usleep(1000); /* exec sets the link first, and the arguments a moment later */
        task_list_freep(&args);
        CHECK_OK(task_list(task, "cmdline", &args, &err));
    }
    CHECK_OK(task_list(task, "environ", &env, &err));
    end(pid);
    CHECK(args[0] && args[1] && !args[2]);
    CHECK_STR(args[1], "100");
    CHECK(env[0] && env[1] && !env[2]);
    CHECK_STR(env[1], "EMPTY=");
}

TEST(a_tree_has_each_process_after_its_parent)
{
    struct err err = ERR_INIT;
    int ready[2];
    char byte = 0;
    CHECK(pipe2(ready, O_CLOEXEC) == 0);
    pid_t root = fork();
    CHECK(root >= 0);
    if (root == 0) {
        for (int i = 0; i < 3; i++)
            if (fork() == 0) {
                if (i == 1)
                    (void)fork();
                (void)!write(ready[1], "x", 1);
                (void)pause();
            }
        (void)pause();
    }
    for (int i = 0; i < 4; i++)
        CHECK(read(ready[0], &byte, 1) == 1);
    CLEANUP(fd_closep) int proc = open_proc();
    CLEANUP(mem_freep) struct task_stat *tree = NULL;
    size_t n = 0;
    CHECK_OK(task_tree(proc, root, &tree, &n, &err));
    for (size_t i = n; i-- > 0;)
        (void)kill(tree[i].pid, SIGKILL);
    CHECK(waitpid(root, NULL, 0) == root);
    (void)close(ready[0]);
    (void)close(ready[1]);
    CHECK_INT(n, 5);
    CHECK_INT(tree[0].pid, root);
    for (size_t i = 1; i < n; i++) {
        bool seen = false;
        for (size_t k = 0; k < i; k++)
            seen |= tree[k].pid == tree[i].ppid;
        CHECK(seen);
    }
    struct task_stat *none = NULL;
    CHECK_RC(task_tree(proc, 0x3fffffff, &none, &n, &err), RC_NOT_FOUND);
}

TEST(threads_are_listed)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int task = open_task(getpid());
    CLEANUP(mem_freep) pid_t *tids = NULL;
    size_t n = 0;
    CHECK_OK(task_threads(task, &tids, &n, &err));
    CHECK_INT(n, TEST_EXTRA_THREAD ? 2 : 1);
    CHECK_INT(tids[0], getpid());
}

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "container/proc_tree.h"
#include "harness/test.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

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

TEST(facts_of_ourselves_are_right)
{
    struct err err = ERR_INIT;
    struct proc_facts f;
    CHECK(prctl(PR_SET_NAME, "a name) S (x") == 0);
    CHECK_OK(proc_facts_read(getpid(), &f, &err));
    CHECK_STR(f.comm, "a name) S (x");
    CHECK_INT(f.pid, getpid());
    CHECK_INT(f.inner, getpid());
    CHECK_INT(f.ppid, getppid());
    CHECK_INT(f.uid, getuid());
    CHECK_INT(f.tracer, 0);
    CHECK(f.rss_bytes >= 4096 && f.start > 0);
}

TEST(no_such_process_is_not_found)
{
    struct err err = ERR_INIT;
    struct proc_facts f, *list = NULL;
    size_t n = 0;
    char *link = NULL, **args = NULL;
    CHECK_RC(proc_facts_read(0x3fffffff, &f, &err), RC_NOT_FOUND);
    CHECK_STR(err.msg, "no process 1073741823");
    CHECK_RC(proc_tree(0x3fffffff, &list, &n, &err), RC_NOT_FOUND);
    CHECK_RC(proc_link(0x3fffffff, "exe", &link, &err), RC_NOT_FOUND);
    CHECK_RC(proc_list(0x3fffffff, "cmdline", &args, &err), RC_NOT_FOUND);
}

TEST(children_and_tree_have_what_was_started)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) struct proc_facts *children = NULL;
    CLEANUP(mem_freep) struct proc_facts *tree = NULL;
    CLEANUP(mem_freep) struct proc_facts *all = NULL;
    size_t n_children = 0, n_tree = 0, n_all = 0;
    pid_t pid = start();
    CHECK_OK(proc_children(getpid(), &children, &n_children, &err));
    CHECK_OK(proc_tree(getpid(), &tree, &n_tree, &err));
    CHECK_OK(proc_in_namespace(pid, &all, &n_all, &err));
    end(pid);
    CHECK_INT(n_children, 1);
    CHECK_INT(children[0].pid, pid);
    CHECK_INT(n_tree, 2);
    CHECK_INT(tree[0].pid, getpid());
    CHECK_INT(tree[1].pid, pid);
    bool seen = false;
    for (size_t i = 0; i < n_all; i++)
        seen |= all[i].pid == pid;
    CHECK(seen);
}

TEST(who_was_killed_is_ending)
{
    struct err err = ERR_INIT;
    struct proc_facts f;
    siginfo_t info;
    pid_t pid = start();
    CHECK_OK(proc_facts_read(pid, &f, &err));
    CHECK(!f.ending);
    CHECK(kill(pid, SIGKILL) == 0);
    CHECK_OK(proc_facts_read(pid, &f, &err)); /* at whatever point of its end */
    CHECK(f.ending);
    CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0);
    CHECK_OK(proc_facts_read(pid, &f, &err));
    CHECK(f.ending);
    CHECK(waitpid(pid, NULL, 0) == pid);
}

static void *make_children(void *arg)
{
    pid_t *pids = arg;
    for (unsigned i = 0; i < 3; i++)
        pids[i] = start();
    while (pause() < 0)
        continue;
    return NULL;
}

/* Each thread has children of its own, and a child has some. */
TEST(a_tree_has_the_children_of_every_thread)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) struct proc_facts *tree = NULL;
    size_t n = 0;
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    pid_t root = fork();
    if (root == 0) {
        static pid_t pids[4][3];
        pthread_t threads[4];
        for (unsigned i = 0; i < 4; i++)
            if (pthread_create(&threads[i], NULL, make_children, pids[i]) != 0)
                _exit(1);
        if (start() && write(pipes[1], "", 1) == 1)
            for (;;)
                (void)pause();
        _exit(1);
    }
    char byte;
    CHECK(read(pipes[0], &byte, 1) == 1);
    uint64_t deadline = clock_now() + 60 * CLOCK_S;
    while (n < 14 && clock_now() < deadline) {
        free(STEAL(tree));
        CHECK_OK(proc_tree(root, &tree, &n, &err));
    }
    CHECK_INT(n, 14);
    for (size_t i = 1; i < n; i++)
        CHECK(tree[i].ppid == root);
    for (size_t i = n; i-- > 1;)
        CHECK(kill(tree[i].pid, SIGKILL) == 0);
    end(root);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

TEST(links_and_lists_are_read)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *cwd = NULL;
    char own[4096];
    char **args = NULL;
    CHECK_OK(proc_link(getpid(), "cwd", &cwd, &err));
    CHECK(getcwd(own, sizeof(own)));
    CHECK_STR(cwd, own);
    CHECK_OK(proc_list(getpid(), "cmdline", &args, &err));
    CHECK(args[0] && strstr(args[0], "proc_tree"));
    proc_free_list(args);
}

/* A process in which a dead CRIU has left its traces; with the real CRIU a system test kills it. */
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/maps.h"
#include "container/task.h"
#include "engine/survivors.h"
#include "harness/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAP_BYTES ((size_t)65536)

static uint64_t soon(void)
{
    return clock_now() + 20 * CLOCK_S;
}

/* A child that says when it is ready, and then waits. */
static pid_t start(void (*prepare)(void))
{
    int p[2];
    char ready = 0;
    CHECK(pipe2(p, O_CLOEXEC) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        if (prepare)
            prepare();
        (void)!write(p[1], "r", 1);
        for (;;)
            (void)pause();
    }
    CHECK(read(p[0], &ready, 1) == 1);
    (void)close(p[0]);
    (void)close(p[1]);
    return pid;
}

static struct proc_facts facts_of(pid_t pid)
{
    struct err err = ERR_INIT;
    struct proc_facts f = {0};
    CHECK_OK(proc_facts_read(pid, &f, &err));
    return f;
}

static void read_maps(pid_t pid, struct maps *out)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    CHECK_OK(task_open_proc("/proc", &proc, &err));
    CHECK_OK(task_open(proc, pid, &task, &err));
    CHECK_OK(maps_read(task, false, out, &err));
}

static bool has_parasite(pid_t pid)
{
    CLEANUP(maps_done) struct maps maps = {0};
    bool found = false;
    read_maps(pid, &maps);
    for (size_t i = 0; i < maps.n; i++)
        found = found || strncmp(maps.list[i].name, "/memfd:CRIUMFD", 14) == 0;
    return found;
}

static void be_infected(void)
{
    int fd = memfd_create("CRIUMFD", 0);
    (void)!ftruncate(fd, (off_t)MAP_BYTES);
    (void)mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, fd, 0);
    (void)close(fd);
}

TEST(memory_that_was_left_is_unmapped)
{
    struct err err = ERR_INIT;
    CLEANUP(survivors_freep) struct survivors *s = NULL;
    pid_t pid = start(be_infected);
    struct proc_facts f = facts_of(pid);
    survivors_note(&f, 1, &s);
    CHECK(has_parasite(pid));
    CHECK_OK(survivors_mend(s, soon(), &err));
    CHECK(!has_parasite(pid) && kill(pid, 0) == 0);
}

/* The first executable area of a process: where CRIU puts its code. */
static uint64_t first_code(pid_t pid)
{
    CLEANUP(maps_done) struct maps maps = {0};
    read_maps(pid, &maps);
    for (size_t i = 0; i < maps.n; i++)
        if (maps.list[i].flags & MAPS_EXEC && maps.list[i].ino)
            return maps.list[i].start;
    return 0;
}

TEST(code_that_was_left_gives_way_to_the_programs)
{
    static const uint8_t left[16] = "\x0f\x05\xcc\xcc\xcc\xcc\xcc\xcc"
                                    "CRIUMFD";
    struct err err = ERR_INIT;
    uint8_t before[16], after[16];
    char path[32];
    CLEANUP(survivors_freep) struct survivors *s = NULL;
    pid_t pid = start(NULL);
    struct proc_facts f = facts_of(pid);
    off_t at = (off_t)first_code(pid);
    (void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
    CLEANUP(fd_closep) int memory = open(path, O_RDWR | O_CLOEXEC);
    CHECK(pread(memory, before, 16, at) == 16 && pwrite(memory, left, 16, at) == 16);
    survivors_note(&f, 1, &s);
    CHECK_OK(survivors_mend(s, soon(), &err));
    CHECK(pread(memory, after, 16, at) == 16 && memcmp(before, after, 16) == 0);
}

/* As CRIU does it; the C library would leave some signals out. */
static void block(pid_t pid, uint64_t mask)
{
    CHECK(ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0);
    CHECK(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0 && waitpid(pid, NULL, __WALL) == pid);
    CHECK(ptrace(PTRACE_SETSIGMASK, pid, (void *)(size_t)8, &mask) == 0);
    CHECK(ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0);
}

TEST(signals_that_were_left_blocked_are_as_before)
{
    struct err err = ERR_INIT;
    int status = 0;
    CLEANUP(survivors_freep) struct survivors *s = NULL;
    pid_t pid = start(NULL);
    struct proc_facts f = facts_of(pid);
    survivors_note(&f, 1, &s);
    block(pid, UINT64_MAX);
    CHECK_OK(survivors_mend(s, soon(), &err));
    CHECK(kill(pid, SIGTERM) == 0 && waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

TEST(who_had_been_stopped_is_stopped_again)
{
    struct err err = ERR_INIT;
    int status = 0;
    CLEANUP(survivors_freep) struct survivors *s = NULL;
    pid_t pid = start(NULL);
    CHECK(kill(pid, SIGSTOP) == 0 && waitpid(pid, &status, WUNTRACED) == pid);
    struct proc_facts f = facts_of(pid);
    CHECK(f.state == 'T');
    survivors_note(&f, 1, &s);
    CHECK(kill(pid, SIGCONT) == 0);
    CHECK_OK(survivors_mend(s, soon(), &err));
    CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
    CHECK(kill(pid, SIGKILL) == 0);
}

TEST(who_is_lost_is_named)
{
    struct err err = ERR_INIT;
    CLEANUP(survivors_freep) struct survivors *s = NULL;
    pid_t pids[] = {start(NULL), start(NULL), start(NULL)};
    struct proc_facts f[] = {facts_of(pids[0]), facts_of(pids[1]), facts_of(pids[2])};
    survivors_note(f, 3, &s);
    CHECK_OK(survivors_mend(s, soon(), &err));
    CHECK(kill(pids[1], SIGTRAP) == 0 && waitpid(pids[1], NULL, 0) == pids[1]);
    CHECK_RC(survivors_mend(s, soon(), &err), RC_IO);
    CLEANUP(mem_freep)
    char *one = mem_asprintf("process %d (%s) did not survive it", (int)pids[1], f[1].comm);
    CHECK_STR(err.msg, one);
    CHECK(kill(pids[2], SIGKILL) == 0 && waitpid(pids[2], NULL, 0) == pids[2]);
    CHECK_RC(survivors_mend(s, soon(), &err), RC_IO);
    CHECK(strstr(err.msg, "processes "));
}

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "engine/saving.h"
#include "harness/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct proc_facts own_facts(void)
{
    struct err err = ERR_INIT;
    struct proc_facts f = {0};
    CHECK_OK(proc_facts_read(getpid(), &f, &err));
    return f;
}

/* Claims of this process, by its PID. */
static int count_own(void)
{
    int n = 0;
    CLEANUP(mem_freep) char *own = mem_asprintf("-%d-", (int)own_facts().inner);
    DIR *dir = opendir(SAVING_DIR);
    for (const struct dirent *e; dir && (e = readdir(dir));)
        n += strstr(e->d_name, own) != NULL;
    if (dir)
        (void)closedir(dir);
    return n;
}

/* The name of the claim on this process; the caller's. */
static char *own_claim(void)
{
    char *name = NULL;
    CLEANUP(mem_freep) char *own = mem_asprintf("-%d-", (int)own_facts().inner);
    DIR *dir = opendir(SAVING_DIR);
    for (const struct dirent *e; dir && !name && (e = readdir(dir));)
        name = strstr(e->d_name, own) ? mem_strdup(e->d_name) : NULL;
    if (dir)
        (void)closedir(dir);
    return name;
}

static struct saving *begin(const struct proc_facts *f)
{
    struct err err = ERR_INIT;
    struct saving *s = NULL;
    CHECK_OK(saving_begin(f, &s, &err));
    if (!s)
        test_skip("machine: may not write to /run");
    return s;
}

TEST(a_process_is_saved_by_one_at_a_time_and_who_that_is_is_said)
{
    struct err err = ERR_INIT;
    struct proc_facts f = own_facts(), other = f;
    other.start++; /* a reused PID */
    struct saving *s = begin(&f), *more = NULL;
    CLEANUP(mem_freep)
    char *who = mem_asprintf("is just being saved by process %d;", (int)getpid());
    CHECK_RC(saving_begin(&f, &more, &err), RC_CONFLICT);
    CHECK(strstr(err.msg, who) && !more);
    more = begin(&other);
    saving_endp(&more);
    saving_endp(&s);
    s = begin(&f);
    saving_endp(&s);
}

TEST(the_end_of_who_saves_is_the_end_of_its_claim)
{
    struct proc_facts f = own_facts();
    int p[2];
    char ready = 0;
    CHECK(pipe(p) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        (void)begin(&f);
        (void)!write(p[1], "r", 1);
        for (;;)
            (void)pause();
    }
    CHECK(read(p[0], &ready, 1) == 1);
    (void)close(p[0]);
    (void)close(p[1]);
    struct err err = ERR_INIT;
    struct saving *s = NULL;
    CHECK_RC(saving_begin(&f, &s, &err), RC_CONFLICT);
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
    s = begin(&f);
    saving_endp(&s);
    CHECK_INT(count_own(), 0);
}

/* As one that sweeps does, and is interrupted in it. */
static void hold_for_a_moment(const char *name, int ready)
{
    int gate = open(SAVING_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(gate >= 0 && flock(gate, LOCK_EX) == 0);
    int file = openat(gate, name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    CHECK(file >= 0 && flock(file, LOCK_EX) == 0);
    (void)!write(ready, "r", 1);
    (void)nanosleep(&(struct timespec){0, 100000000}, NULL);
    _exit(0);
}

TEST(who_sweeps_saves_nothing)
{
    struct proc_facts f = own_facts();
    int p[2];
    char ready = 0;
    struct saving *s = begin(&f);
    CLEANUP(mem_freep) char *name = own_claim();
    saving_endp(&s);
    CHECK(name && pipe(p) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        hold_for_a_moment(name, p[1]);
    CHECK(read(p[0], &ready, 1) == 1);
    s = begin(&f);
    saving_endp(&s);
    CHECK(waitpid(pid, NULL, 0) == pid);
    (void)close(p[0]);
    (void)close(p[1]);
}

TEST(an_ended_claim_has_ended_also_for_a_child_that_was_forked_meanwhile)
{
    struct proc_facts f = own_facts();
    struct saving *s = begin(&f);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        for (;;)
            (void)pause();
    CLEANUP(mem_freep) char *name = own_claim();
    CLEANUP(mem_freep) char *path = mem_asprintf(SAVING_DIR "/%s", name);
    CLEANUP(mem_freep) char *kept = mem_asprintf(SAVING_DIR "/.%s", name);
    CHECK(link(path, kept) == 0);
    saving_endp(&s);
    CLEANUP(fd_closep) int file = open(kept, O_RDONLY | O_CLOEXEC);
    (void)unlink(kept);
    CHECK(file >= 0 && flock(file, LOCK_EX | LOCK_NB) == 0);
    CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
}

TEST(what_the_dead_have_left_goes_with_the_next_claim)
{
    struct proc_facts f = own_facts(), other = f;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        (void)begin(&f);
        (void)raise(SIGKILL);
    }
    CHECK(waitpid(pid, NULL, 0) == pid);
    if (count_own() == 0)
        test_skip("machine: may not write to /run");
    other.start++;
    struct saving *s = begin(&other);
    CHECK_INT(count_own(), 1);
    saving_endp(&s);
}

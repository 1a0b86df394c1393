#include "harness/test.h"

#include <dirent.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_SKIP = 75, TEST_SECONDS = 60, SKIP_MAX = 200 };

static struct test *tests;
static char dir[] = "/tmp/test-XXXXXX";
static char *skip_reason; /* shared with the child */

void test_register(struct test *t)
{
    struct test **p = &tests;
    while (*p)
        p = &(*p)->next;
    *p = t;
}

void test_fail(const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stdout, "# %s:%d: ", file, line);
    vfprintf(stdout, fmt, ap);
    fputc('\n', stdout);
    va_end(ap);
    fflush(stdout);
    _exit(1);
}

void test_skip(const char *why)
{
    (void)snprintf(skip_reason, SKIP_MAX, "%s", why);
    fflush(stdout);
    _exit(EXIT_SKIP);
}

const char *test_dir(void)
{
    return dir;
}

int test_open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

static int rm_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

/* The child's whole life.  Checks leave by _exit(1), so that nothing else of the test runs. */
static _Noreturn void be_the_test(const struct test *t)
{
    (void)setpgid(0, 0);
    (void)alarm(TEST_SECONDS);
    int before = test_open_fds();
    t->fn();
    int after = test_open_fds();
    if (after > before)
        test_fail(t->name, 0, "%d descriptors before, %d after", before, after);
    fflush(stdout);
    exit(0); /* not _exit: LeakSanitizer and coverage run at exit */
}

static int run_one(const struct test *t)
{
    (void)snprintf(dir, sizeof(dir), "/tmp/test-XXXXXX");
    if (!mkdtemp(dir))
        return 1;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        be_the_test(t);
    int status = -1;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return 1;
    (void)kill(-pid, SIGKILL); /* its group: what it left behind */
    nftw(dir, rm_one, 16, FTW_DEPTH | FTW_PHYS);
    if (WIFSIGNALED(status))
        printf("# %s: killed by signal %d%s\n", t->name, WTERMSIG(status),
               WTERMSIG(status) == SIGALRM ? " (too slow)" : "");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static bool chosen(const struct test *t, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strncmp(t->name, argv[i], strlen(argv[i])) == 0)
            return true;
    return argc == 1;
}

int main(int argc, char **argv)
{
    int n = 0, bad = 0;
    skip_reason = mmap(NULL, SKIP_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (skip_reason == MAP_FAILED)
        return 1;
    for (struct test *t = tests; t; t = t->next) {
        if (!chosen(t, argc, argv))
            continue;
        int rc = run_one(t);
        n++;
        if (rc == EXIT_SKIP)
            printf("ok %d - %s # SKIP %s\n", n, t->name, skip_reason);
        else
            printf("%s %d - %s\n", rc == 0 ? "ok" : "not ok", n, t->name);
        bad += rc != 0 && rc != EXIT_SKIP;
    }
    printf("1..%d\n", n);
    return bad != 0;
}

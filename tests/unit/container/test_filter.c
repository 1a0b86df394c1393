#include "base/compiler.h"
#include "container/filter.h"
#include "harness/test.h"

#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The error of a call with a descriptor that there is not. */
static int error_of(long number)
{
    char nothing[128] = {0};
    return syscall(number, -1, nothing, 0, 0, nothing) < 0 ? errno : 0;
}

static void expect_none(void)
{
    static const long calls[] = {SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register};
    for (size_t i = 0; i < ARRAY_LEN(calls); i++)
        CHECK_INT(error_of(calls[i]), ENOSYS);
}

static void *expect_none_in_thread(void *arg)
{
    expect_none();
    return arg;
}

static void filter(void)
{
    if (error_of(SYS_io_uring_enter) == ENOSYS)
        test_skip("kernel: it has no io_uring");
    if (filter_io_uring() == 0)
        return;
    CHECK_INT(errno, EACCES);
    test_skip("machine: a filter takes CAP_SYS_ADMIN");
}

TEST(there_is_no_io_uring_in_anything_that_is_started)
{
    int status = -1;
    pthread_t t;
    filter();
    expect_none();
    CHECK(pthread_create(&t, NULL, expect_none_in_thread, NULL) == 0);
    CHECK(pthread_join(t, NULL) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        expect_none();
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_INT(status, 0);
}

TEST(what_is_beside_io_uring_is_there)
{
    filter();
    CHECK_INT(error_of(SYS_io_uring_setup - 1), EBADF);   /* pidfd_send_signal */
    CHECK(error_of(SYS_io_uring_register + 1) != ENOSYS); /* open_tree */
}

TEST(who_may_not_is_told)
{
    if (setresuid(65534, 65534, 65534) < 0)
        test_skip("machine: not root");
    CHECK_INT(filter_io_uring(), -1);
    CHECK_INT(errno, EACCES);
}

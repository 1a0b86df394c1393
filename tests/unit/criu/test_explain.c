#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"
#include "criu/explain.h"
#include "harness/test.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Lines of real logs of CRIU 4.2.1. */
static const struct {
    const char *log, *line, *meaning;
    enum rc rc;
} cases[] = {
    {"(00.03) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not "
     "permitted\n"
     "(00.05) Error (criu/files-reg.c:1790): Can't lookup mount=24 for fd=0 path=/dev/null\n"
     "(00.05) Error (criu/cr-dump.c:1545): Dump files (pid: 301) failed with -1\n"
     "(00.05) Error (criu/cr-dump.c:1975): Dumping FAILED.\n",
     "Can't lookup mount=24", "opened through a mount", RC_UNSUPPORTED},
    {"(00.01) 17: Error (criu/cr-restore.c:1234): Can't fork for 301: File exists\n",
     "Can't fork for 301", "PID that the tree needs", RC_CONFLICT},
    {"(00.02)   301: Error (criu/files-reg.c:2291): Can't open file tmp/data on restore: No such "
     "file or directory\n",
     "Can't open file tmp/data", "not there any more", RC_NOT_FOUND},
    {"(00.02)   301: Error (criu/sk-inet.c:1055): Can't bind inet socket (id 12): Address already "
     "in use\n",
     "Can't bind inet socket", "is taken", RC_CONFLICT},
    {"(00.02)   301: Error (criu/files-reg.c:2205): File tmp/data has bad size 5 (expect 1000)\n",
     "has bad size", "another size", RC_CONFLICT},
    {"(00.27)    301: Error (criu/tty.c:991): tty: Can't open master pty 16 (index 0)\n",
     "Can't open master pty", "number of a terminal", RC_CONFLICT},
    {"(00.10) Error (criu/namespaces.c:269): Can't setns 9/ipc: Operation not permitted\n",
     "Can't setns", "user namespace", RC_UNSUPPORTED},
    {"(00.10) Error (criu/sockets.c:628): Can't get 1:16 opt: Operation not supported\n",
     "Can't get 1:16 opt", "too old", RC_UNSUPPORTED},
    {"(00.10) Error (criu/cr-restore.c:1100): Pid 17 do not match expected 301\n",
     "do not match expected", "PID that the tree needs", RC_CONFLICT},
    {"(00.10) Error (criu/ptrace.c:9): cannot read registers of pid 301\n", "cannot read registers",
     NULL, RC_IO},
    {"(00.10) Error (criu/pie/restorer.c:9): mmap: Cannot allocate memory\n",
     "Cannot allocate memory", "too little memory", RC_IO},
    {"(00.10) Error (criu/files.c:9): Can't dup: Too many open files\n", "Too many open files",
     "limit of open files", RC_IO},
    {"(00.10) Error (criu/sk-inet.c:9): Can't dump mptcp sockets\n", "mptcp", "multipath",
     RC_UNSUPPORTED},
    {"(00.10) Error (criu/cpu.c:9): xsave: features missing\n", "xsave", "CPU lacks",
     RC_UNSUPPORTED},
    {"(00.10) Error (compel/src/lib/infect.c:418): Unable to detach from 301: No such process\n"
     "(00.10) Error (criu/brand-new.c:1): something else\n",
     "something else", NULL, RC_IO},
    {"(00.02) Error (criu/brand-new.c:1): something never seen\n", "something never seen", NULL,
     RC_IO},
    {"(00.01) Error (criu/tun.c:101): tun: Unable to create tun: No such file or directory\n", "",
     NULL, RC_IO},
    {"no error at all\n", "", NULL, RC_IO},
    {"", "", NULL, RC_IO},
};

TEST(the_first_real_error_is_found_and_explained)
{
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct cr_explanation x;
        cr_explain(cases[i].log, strlen(cases[i].log), &x);
        if (!strstr(x.line, cases[i].line) || (!cases[i].line[0] && x.line[0]))
            test_fail(__FILE__, __LINE__, "case %zu: line '%s'", i, x.line);
        CHECK(x.rc == cases[i].rc);
        CHECK(!x.meaning == !cases[i].meaning);
        if (x.meaning)
            CHECK(strstr(x.meaning, cases[i].meaning) && x.remedy && x.remedy[0]);
    }
}

TEST(a_failure_that_is_not_criu_s_own_is_left_alone)
{
    struct err err = ERR_INIT;
    CHECK(cr_explain_file(AT_FDCWD, "none", RC_TIMEOUT, &err) == RC_TIMEOUT);
    (void)!err_set(&err, RC_IO, "as it was");
    CHECK(cr_explain_file(AT_FDCWD, "none", RC_IO, &err) == RC_IO);
    CHECK_STR(err.msg, "as it was");
}

TEST(of_a_very_long_log_the_end_counts)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CLEANUP(fd_closep) int log = sys_openat(dir, "log", O_WRONLY | O_CREAT, 0600);
    CHECK(ftruncate(log, 65 << 20) == 0 && lseek(log, 0, SEEK_END) > 0);
    CHECK_OK(sys_write_all(log, cases[1].log, strlen(cases[1].log), &err));
    CHECK_RC(cr_explain_file(dir, "log", RC_IO, &err), RC_CONFLICT);
    CHECK(strstr(err.msg, cases[1].meaning));
}

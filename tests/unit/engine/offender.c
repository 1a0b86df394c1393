#include "offender.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/join.h"
#include "container/proc_tree.h"
#include "criu/explain.h"
#include "criu/session.h"
#include "harness/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) ||                               \
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED true
#else
#define SANITIZED false
#endif

_Noreturn void offender_exec(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3; fd++)
        CHECK(null >= 0 && dup2(null, fd) == fd);
    (void)execl("/bin/sleep", "sleep", "1000", (char *)NULL);
    _exit(127);
}

_Noreturn void offender_wait(void)
{
    for (;;)
        (void)pause();
}

static void be_alone(int ready)
{
    CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    CHECK(chdir("/") == 0);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    CHECK(null >= 0);
    for (int fd = 0; fd < 3; fd++)
        CHECK(dup2(null, fd) == fd);
    CHECK(dup3(ready, 3, O_CLOEXEC) == 3 || ready == 3);
    CHECK(close_range(4, ~0U, 0) == 0);
}

static pid_t start(int (*act)(void *arg), void *arg, bool session)
{
    int ready[2], code = 0;
    CHECK(pipe2(ready, O_CLOEXEC) == 0);
    (void)fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        be_alone(ready[1]);
        if (session)
            (void)setsid();
        code = act ? act(arg) : 0;
        (void)!write(3, &code, sizeof(code));
        (void)close(3);
        if (code)
            _exit(1);
        offender_wait();
    }
    (void)close(ready[1]);
    ssize_t n = read(ready[0], &code, sizeof(code));
    (void)close(ready[0]);
    if (n == 0)
        code = 0; /* it has become another program */
    if (code)
        offender_end(pid);
    return code ? -code : pid;
}

pid_t offender_start(int (*act)(void *arg), void *arg)
{
    return start(act, arg, true);
}

pid_t offender_start_plain(int (*act)(void *arg), void *arg)
{
    return start(act, arg, false);
}

pid_t offender_child(int (*act)(void *arg), void *arg)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0)
        return pid;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)close(3);
    if (act && act(arg))
        _exit(1);
    offender_wait();
}

void offender_end(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

/* ---- CRIU ---- */

static char *criu_path(void)
{
    const char *named = getenv("CHREK_CRIU"), *root = getenv("CHREK_SOURCE_ROOT");
    char *path =
        named ? mem_strdup(named) : mem_asprintf("%s/build/criu/sbin/criu", root ? root : ".");
    if (access(path, X_OK) == 0)
        return path;
    free(path);
    return NULL;
}

bool criu_is_here(void)
{
    CLEANUP(mem_freep) char *path = criu_path();
    return path && !SANITIZED;
}

static enum rc dump(const char *criu, const struct doctor_process *p, int dir, struct err *out_err)
{
    CLEANUP(cr_session_freep) struct cr_session *s = NULL;
    CLEANUP(join_done) struct join join = {{-1, -1, -1, -1}};
    struct proc_facts facts;
    struct err err = ERR_INIT;
    CHECK_OK(proc_facts_read(p->pid, &facts, &err));
    CHECK_OK(join_open(p->pid, &join, &err));
    struct cr_launch launch = {
        .criu = criu, .enter = join_enter, .enter_arg = &join, .pass_fds = &dir, .n_pass = 1};
    CHECK_OK(cr_session_open(&launch, &s, &err));
    struct cr_opts opts = {.pid = facts.inner,
                           .images_fd = cr_session_fd(0),
                           .work_fd = cr_session_fd(0),
                           .log_file = "dump.log",
                           .log_level = 4,
                           .leave_running = true,
                           .shell_job = true,
                           .tcp_established = p->tcp_established,
                           .tcp_close = !p->tcp_established,
                           .tcp_skip_in_flight = p->skip_in_flight,
                           .file_locks = true,
                           .link_remap = true,
                           .ext_unix_sk = true,
                           .ext_masters = true,
                           .orphan_pts_master = true,
                           .force_irmap = true,
                           .timeout_s = 3,
                           .ghost_limit = p->ghost_limit ? (unsigned)p->ghost_limit : 64U << 20};
    return cr_dump(s, &opts, NULL, clock_now() + 40 * CLOCK_S, out_err);
}

bool criu_saves(const struct doctor_process *p, char *out, size_t cap)
{
    struct err err = ERR_INIT;
    char name[] = "images-XXXXXX";
    CLEANUP(mem_freep) char *criu = criu_path();
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/%s", test_dir(), name);
    CHECK(criu && mkdtemp(path));
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    CHECK(dir >= 0);
    enum rc rc = dump(criu, p, dir, &err);
    if (rc)
        rc = cr_explain_file(dir, "dump.log", rc, &err);
    (void)snprintf(out, cap, "%s", rc ? err.msg : "");
    return rc == RC_OK;
}

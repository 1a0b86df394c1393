#include "base/clock.h"
#include "base/compiler.h"
#include "engine/children.h"
#include "harness/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* A child that stays, with a child of its own in another session; the latter's PID. */
static pid_t start_family(pid_t *out_child)
{
    int p[2];
    pid_t grandchild = 0;
    CHECK(pipe2(p, O_CLOEXEC) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        pid_t pid = fork();
        if (pid == 0) {
            (void)setsid();
            (void)signal(SIGTERM, SIG_IGN);
            for (;;)
                (void)pause();
        }
        (void)!write(p[1], &pid, sizeof(pid));
        for (;;)
            (void)pause();
    }
    CHECK(read(p[0], &grandchild, sizeof(grandchild)) == sizeof(grandchild));
    (void)close(p[0]);
    (void)close(p[1]);
    *out_child = child;
    return grandchild;
}

static bool lives(pid_t pid)
{
    return kill(pid, 0) == 0;
}

static uint64_t soon(void)
{
    return clock_now() + 20 * CLOCK_S;
}

TEST(those_that_came_since_are_ended_and_reaped_with_their_descendants)
{
    struct err err = ERR_INIT;
    CLEANUP(children_done) struct children c = CHILDREN_INIT;
    pid_t old_child = 0, fresh_child = 0;
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0); /* as PID 1 of a container is */
    pid_t old = start_family(&old_child);
    CHECK_OK(children_note(&c, getpid(), &err));
    pid_t fresh = start_family(&fresh_child);
    CHECK_OK(children_end(&c, soon(), &err));
    CHECK(!lives(fresh) && !lives(fresh_child));
    CHECK(waitpid(fresh, NULL, WNOHANG) < 0 && errno == ECHILD);
    CHECK_OK(children_end(&c, soon(), &err));
    CHECK(kill(old, SIGKILL) == 0 && kill(old_child, SIGKILL) == 0); /* both live */
}

TEST(an_older_process_that_loses_its_parent_is_left_alone)
{
    struct err err = ERR_INIT;
    CLEANUP(children_done) struct children c = CHILDREN_INIT;
    pid_t old = 0;
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    pid_t orphan = start_family(&old);
    (void)usleep(30000); /* a clock tick is 10 ms */
    CHECK_OK(children_note(&c, getpid(), &err));
    CHECK(kill(old, SIGKILL) == 0 && waitpid(old, NULL, 0) == old);
    CHECK_OK(children_end(&c, soon(), &err));
    CHECK(kill(orphan, SIGKILL) == 0); /* it lives */
}

TEST(the_spared_child_is_spared)
{
    struct err err = ERR_INIT;
    CLEANUP(children_done) struct children c = CHILDREN_INIT;
    pid_t spared = 0, other = 0;
    CHECK_OK(children_note(&c, getpid(), &err));
    (void)start_family(&spared);
    (void)start_family(&other);
    children_kill(&c, spared);
    CHECK(waitpid(other, NULL, 0) == other);
    CHECK(waitpid(spared, NULL, WNOHANG) == 0 && lives(spared));
    CHECK_OK(children_end(&c, soon(), &err));
}

/* How a restored program is told; in a box the system tests show it. */
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "engine/notify.h"
#include "harness/test.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static enum rc tell(const char *how, uint64_t limit_ns, struct err *err)
{
    return notify_process(how, getpid(), clock_now() + limit_ns, err);
}

TEST(a_command_is_run_and_its_failure_told)
{
    struct err err = ERR_INIT;
    CHECK_OK(tell("exec:test -n \"$CHREK_DIR\"", 20 * CLOCK_S, &err));
    CHECK_RC(tell("exec:exit 7", 20 * CLOCK_S, &err), RC_IO);
    CHECK(strstr(err.msg, "status 7"));
    CHECK_RC(tell("exec:", CLOCK_S, &err), RC_INVALID);
    CHECK_RC(tell("signal:NOSUCH", CLOCK_S, &err), RC_INVALID);
}

TEST(a_command_gets_signals_though_we_block_them)
{
    struct err err = ERR_INIT;
    sigset_t all;
    (void)sigfillset(&all);
    CHECK(sigprocmask(SIG_SETMASK, &all, NULL) == 0);
    CHECK_RC(tell("exec:kill -TERM $$; exit 0", 20 * CLOCK_S, &err), RC_IO);
    CHECK(strstr(err.msg, "status 143"));
}

/* Whether a process executes nothing any more. */
static bool is_dead(pid_t pid)
{
    char path[64], state = 'X';
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
        state = 'X';
    if (f)
        (void)fclose(f);
    return state == 'X' || state == 'Z';
}

TEST(a_command_that_takes_too_long_is_killed_with_all_it_has_started)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/pids", test_dir());
    CLEANUP(mem_freep)
    char *how = mem_asprintf("exec:sleep 100 & echo $$ $! > %s; wait", path);
    CHECK_RC(tell(how, CLOCK_S, &err), RC_TIMEOUT);
    int shell = 0, child = 0;
    FILE *f = fopen(path, "re");
    CHECK(f && fscanf(f, "%d %d", &shell, &child) == 2);
    (void)fclose(f);
    uint64_t limit = clock_now() + 10 * CLOCK_S;
    while (clock_now() < limit && !(is_dead(shell) && is_dead(child)))
        (void)usleep(10000);
    CHECK(is_dead(shell) && is_dead(child));
}

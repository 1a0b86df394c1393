/* chrek-gpu as its parent sees it: the real program over the fake driver, and programs that crash.
 */
#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "gpu/helper.h"
#include "harness/test.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char *built_program(void)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    CHECK(n > 0);
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    return mem_asprintf("%s/../src/chrek-gpu", self);
}

static struct gpu_helper *start(void)
{
    struct err err = ERR_INIT;
    struct gpu_helper *h = NULL;
    CLEANUP(mem_freep) char *program = built_program();
    CHECK_OK(gpu_helper_open(program, &h, &err));
    return h;
}

static char *script(const char *text)
{
    char *path = mem_asprintf("%s/helper", test_dir());
    CHECK(fs_write_whole(AT_FDCWD, path, text, strlen(text), 0755, NULL) == RC_OK);
    return path;
}

static uint64_t soon(void)
{
    return clock_now() + 20 * CLOCK_S;
}

TEST(it_tells_what_there_is)
{
    struct err err = ERR_INIT;
    CLEANUP(gpu_helper_freep) struct gpu_helper *h = start();
    CLEANUP(mem_freep) struct gpu_request *q = mem_zalloc(sizeof(*q));
    CLEANUP(mem_freep) struct gpu_reply *r = mem_zalloc(sizeof(*r));
    for (int i = 0; i < 2; i++) { /* the same one answers again */
        CHECK_OK(gpu_helper_call(h, q, soon(), r, &err));
        CHECK(r->has_facts && r->facts.n_devices == 1 && r->facts.can_checkpoint);
        CHECK_STR(r->facts.device[0].name, "Fake GPU");
    }
}

TEST(a_failed_request_is_the_calls_error)
{
    struct err err = ERR_INIT;
    CLEANUP(gpu_helper_freep) struct gpu_helper *h = start();
    CLEANUP(mem_freep) struct gpu_request *q = mem_zalloc(sizeof(*q));
    CLEANUP(mem_freep) struct gpu_reply *r = mem_zalloc(sizeof(*r));
    *q = (struct gpu_request){.verb = GPU_LOCK, .n_pids = 1};
    q->pid[0] = getpid(); /* no CUDA process */
    CHECK_RC(gpu_helper_call(h, q, soon(), r, &err), RC_IO);
    CHECK(strstr(err.msg, "CUDA_ERROR_NOT_INITIALIZED"));
    CHECK_INT(r->n, 1);
}

TEST(one_that_hangs_is_killed_and_another_started)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) struct gpu_request *q = mem_zalloc(sizeof(*q));
    CLEANUP(mem_freep) struct gpu_reply *r = mem_zalloc(sizeof(*r));
    CHECK(setenv("CHREK_FAKE_CUDA", "lock=hang", 1) == 0);
    CLEANUP(gpu_helper_freep) struct gpu_helper *h = start();
    *q = (struct gpu_request){.verb = GPU_LOCK, .n_pids = 1};
    q->pid[0] = getpid();
    CHECK_RC(gpu_helper_call(h, q, clock_now() + CLOCK_S, r, &err), RC_TIMEOUT);
    CHECK(strstr(err.msg, "'lock'") && strstr(err.msg, "was killed"));
    *q = (struct gpu_request){.verb = GPU_HELLO};
    CHECK_OK(gpu_helper_call(h, q, soon(), r, &err));
}

TEST(one_that_crashes_is_said_so)
{
    struct err err = ERR_INIT;
    struct gpu_helper *h = NULL;
    CLEANUP(mem_freep) struct gpu_request *q = mem_zalloc(sizeof(*q));
    CLEANUP(mem_freep) struct gpu_reply *r = mem_zalloc(sizeof(*r));
    static const struct {
        const char *text, *says;
    } cases[] = {{"#!/bin/sh\nkill -SEGV $$\n", "signal 11"},
                 {"#!/bin/sh\nexit 3\n", "status 3"},
                 {"#!/no/such/shell\n", "cannot execute"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        CLEANUP(mem_freep) char *path = script(cases[i].text);
        CHECK_OK(gpu_helper_open(path, &h, &err));
        CHECK_RC(gpu_helper_call(h, q, soon(), r, &err), RC_IO);
        CHECK(strstr(err.msg, cases[i].says));
        gpu_helper_freep(&h);
    }
}

TEST(no_such_program)
{
    struct err err = ERR_INIT;
    struct gpu_helper *h = NULL;
    CHECK_RC(gpu_helper_open("/no/such/program", &h, &err), RC_NOT_FOUND);
    CHECK(!h);
}

TEST(it_is_found_where_the_variable_says_or_not_at_all)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *found = NULL;
    CLEANUP(mem_freep) char *path = script("#!/bin/sh\n");
    CHECK(setenv("CHREK_GPU", path, 1) == 0);
    CHECK_OK(gpu_helper_find(&found, &err));
    CHECK_STR(found, path);
    CHECK(setenv("CHREK_GPU", "/no/such/program", 1) == 0);
    CHECK_RC(gpu_helper_find(&found, &err), RC_NOT_FOUND);
    CHECK(strstr(err.msg, "$CHREK_GPU"));
}

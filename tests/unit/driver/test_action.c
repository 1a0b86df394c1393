/* The driver's operations on real processes, by the fake driver. */
#include "base/compiler.h"
#include "base/mem.h"
#include "driver/action.h"
#include "harness/test.h"
#include "target.h"

#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

struct scene {
    struct cuda cuda;
    struct gpu_facts facts;
    struct gpu_request q;
    struct gpu_reply r;
};

static struct scene *open_scene(void)
{
    struct err err = ERR_INIT;
    struct scene *s = mem_zalloc(sizeof(*s));
    CHECK_OK(cuda_open(&s->cuda, &err));
    return s;
}

static void add(struct scene *s, pid_t pid)
{
    s->q.pid[s->q.n_pids++] = pid;
}

static enum rc act(struct scene *s, enum gpu_verb verb)
{
    s->q.verb = verb;
    s->r = (struct gpu_reply){.rc = RC_OK};
    action_run(&s->cuda, &s->facts, &s->q, &s->r);
    return s->r.rc;
}

static enum gpu_state state(struct scene *s, size_t i)
{
    int number = -1;
    CHECK(s->cuda.state(s->q.pid[i], &number) == 0);
    return action_state_of(number);
}

TEST(there_and_back_two_processes_at_once)
{
    CLEANUP(mem_freep) struct scene *s = open_scene();
    pid_t alone = target_start(1000, NULL), a = target_start(1000, NULL),
          b = target_start(1000, NULL);
    unsigned want[2] = {target_step(alone), target_step(alone)};
    CHECK(want[0] && target_step(a) == want[0] && target_step(b) == want[0]);
    add(s, a);
    add(s, b);
    CHECK_INT(act(s, GPU_LOCK), RC_OK);
    CHECK(state(s, 0) == GPU_LOCKED && state(s, 1) == GPU_LOCKED);
    CHECK_INT(target_step(a), 0);
    CHECK_INT(act(s, GPU_CHECKPOINT), RC_OK);
    CHECK(s->r.process[0].state == GPU_CHECKPOINTED && s->r.process[1].ns > 0);
    CHECK_INT(act(s, GPU_RESTORE), RC_OK);
    CHECK_INT(act(s, GPU_UNLOCK), RC_OK);
    CHECK(state(s, 0) == GPU_RUNNING && state(s, 1) == GPU_RUNNING);
    CHECK_INT(target_step_wait(a), want[1]); /* that it had been asked for while locked */
    CHECK_INT(target_step_wait(b), want[1]);
    target_end(a);
    target_end(b);
    target_end(alone);
}

TEST(those_that_use_cuda_are_found)
{
    CLEANUP(mem_freep) struct scene *s = open_scene();
    pid_t a = target_start(10, NULL);
    add(s, 1);
    add(s, a);
    CHECK_INT(act(s, GPU_FIND), RC_OK);
    CHECK_INT(s->r.n, 1);
    CHECK(s->r.process[0].pid == a && s->r.process[0].thread > a);
    CHECK_INT(s->r.process[0].state, GPU_RUNNING);
    target_end(a);
}

TEST(a_lock_that_one_refuses_leaves_all_running)
{
    CLEANUP(mem_freep) struct scene *s = open_scene();
    pid_t a = target_start(10, NULL);
    unsigned first = target_step(a);
    add(s, a);
    add(s, 1);
    CHECK_INT(act(s, GPU_LOCK), RC_IO);
    CHECK(strstr(s->r.why, "process 1: lock"));
    CHECK(s->r.process[0].code == CUDA_OK && s->r.process[1].code == CUDA_NOT_INITIALIZED);
    CHECK_INT(s->r.process[0].state, GPU_RUNNING);
    CHECK(target_step(a) > 0 && first > 0);
    target_end(a);
}

TEST(a_checkpoint_that_one_refuses_leaves_all_running)
{
    CLEANUP(mem_freep) struct scene *s = open_scene();
    pid_t a = target_start(10, NULL), b = target_start(10, "CHREK_FAKE_UVM=1");
    add(s, a);
    add(s, b);
    CHECK_INT(act(s, GPU_LOCK), RC_OK);
    CHECK_INT(act(s, GPU_CHECKPOINT), RC_UNSUPPORTED);
    CHECK(strstr(s->r.why, "CUDA_ERROR_NOT_SUPPORTED") && strstr(s->r.why, "cudaMallocManaged"));
    CHECK_INT(s->r.process[1].code, CUDA_NOT_SUPPORTED);
    CHECK(state(s, 0) == GPU_RUNNING && state(s, 1) == GPU_RUNNING);
    CHECK(target_step(a) > 0 && target_step(b) > 0);
    target_end(a);
    target_end(b);
}

TEST(one_that_cannot_be_brought_back_is_said_so)
{
    CLEANUP(mem_freep) struct scene *s = open_scene();
    pid_t a = target_start(10, NULL), b = target_start(10, "CHREK_FAKE_UVM=bad");
    add(s, a);
    add(s, b);
    CHECK_INT(act(s, GPU_LOCK), RC_OK);
    CHECK_INT(act(s, GPU_CHECKPOINT), RC_IO);
    CHECK(strstr(s->r.why, "cannot be brought back") && strstr(s->r.why, "'failed'"));
    CHECK_INT(state(s, 0), GPU_RUNNING);
    CHECK(target_step(a) > 0);
    target_end(a);
    target_end(b);
}

TEST(release_brings_back_from_every_state)
{
    CLEANUP(mem_freep) struct scene *s = open_scene();
    pid_t a = target_start(10, NULL);
    add(s, a);
    CHECK_INT(act(s, GPU_RELEASE), RC_OK);
    CHECK_INT(act(s, GPU_LOCK), RC_OK);
    CHECK_INT(act(s, GPU_RELEASE), RC_OK);
    CHECK_INT(state(s, 0), GPU_RUNNING);
    CHECK_INT(act(s, GPU_LOCK), RC_OK);
    CHECK_INT(act(s, GPU_CHECKPOINT), RC_OK);
    CHECK_INT(act(s, GPU_RELEASE), RC_OK);
    CHECK_INT(state(s, 0), GPU_RUNNING);
    CHECK(target_step(a) > 0);
    target_end(a);
}

/* A thread of the process must run for it, which it cannot while somebody traces it. */
TEST(release_waits_for_who_is_traced_and_takes_who_has_ended_as_done)
{
    CLEANUP(mem_freep) struct scene *s = open_scene();
    pid_t a = target_start(10, NULL);
    int status = 0;
    add(s, a);
    CHECK_INT(act(s, GPU_LOCK), RC_OK);
    pid_t tracer = fork();
    CHECK(tracer >= 0);
    if (tracer == 0) {
        bool traced = ptrace(PTRACE_SEIZE, a, NULL, 0) == 0;
        (void)usleep(200000);
        _exit(!traced);
    }
    (void)usleep(50000);
    CHECK_INT(act(s, GPU_RELEASE), RC_OK);
    CHECK(waitpid(tracer, &status, 0) == tracer && status == 0);
    CHECK_INT(state(s, 0), GPU_RUNNING);
    target_end(a);
    CHECK_INT(act(s, GPU_RELEASE), RC_OK);
}

TEST(a_lock_waits_no_longer_than_it_may)
{
    CLEANUP(mem_freep) struct scene *s = open_scene();
    CHECK(setenv("CHREK_FAKE_CUDA", "lock=fail:600", 1) == 0);
    pid_t a = target_start(10, NULL);
    add(s, a);
    s->q.timeout_ms = 10;
    CHECK_INT(act(s, GPU_LOCK), RC_TIMEOUT);
    CHECK(strstr(s->r.why, "did not end in time"));
    CHECK_INT(state(s, 0), GPU_RUNNING);
    target_end(a);
}

TEST(onto_another_gpu)
{
#define FROM "GPU-00000000-1111-2222-3333-444444444444"
#define TO "GPU-b0000000-1111-2222-3333-444444444444"
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) struct scene *s = open_scene();
    pid_t a = target_start(10, NULL);
    add(s, a);
    CHECK_INT(act(s, GPU_LOCK), RC_OK);
    CHECK_INT(act(s, GPU_CHECKPOINT), RC_OK);
    CHECK(setenv("CHREK_FAKE_GPUS", TO ",Fake GPU,8192", 1) == 0); /* the old one has gone */
    CHECK_INT(act(s, GPU_RESTORE), RC_UNSUPPORTED);
    CHECK(strstr(s->r.why, "device map"));
    CHECK_OK(gpu_map_parse(FROM "=" TO, &s->q.map, &err));
    CHECK_INT(act(s, GPU_RESTORE), RC_OK);
    CHECK_INT(act(s, GPU_UNLOCK), RC_OK);
    CHECK(target_step(a) > 0);
    target_end(a);
}

TEST(numbers_of_states)
{
    CHECK_INT(action_state_of(2), GPU_CHECKPOINTED);
    CHECK_INT(action_state_of(3), GPU_FAILED);
    CHECK_INT(action_state_of(4), GPU_UNKNOWN);
    CHECK_INT(action_state_of(-1), GPU_UNKNOWN);
}

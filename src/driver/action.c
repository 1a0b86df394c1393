#include "driver/action.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "driver/explain.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define TRACED_NS (60 * CLOCK_S)
#define STATUS_MAX ((size_t)64 << 10)

struct task {
    const struct cuda *cuda;
    const struct gpu_request *request;
    enum gpu_verb verb; /* the request's, or GPU_RELEASE to take it back */
    struct cuda_pair *pairs;
    struct gpu_process *process;
    pthread_t thread;
    bool threaded;
};

enum gpu_state action_state_of(int state)
{
    return state >= 0 && state <= GPU_FAILED ? (enum gpu_state)state : GPU_UNKNOWN;
}

/* ---- one process ---- */

static int state_of(const struct cuda *c, pid_t pid, enum gpu_state *out)
{
    int state = -1;
    int code = c->state(pid, &state);
    *out = code == CUDA_OK ? action_state_of(state) : GPU_UNKNOWN;
    return code;
}

static int lock(const struct task *t)
{
    struct cuda_lock_args args = {.timeout_ms = t->request->timeout_ms};
    return t->cuda->lock(t->process->pid, &args);
}

static int checkpoint(const struct task *t)
{
    struct cuda_plain_args args = {{0}};
    return t->cuda->checkpoint(t->process->pid, &args);
}

static int restore(const struct task *t)
{
    struct cuda_restore_args args = {.pairs = t->pairs,
                                     .n_pairs = t->pairs ? (uint32_t)t->request->map.n : 0};
    return t->cuda->restore(t->process->pid, &args);
}

static int unlock(const struct task *t)
{
    struct cuda_plain_args args = {{0}};
    return t->cuda->unlock(t->process->pid, &args);
}

/* A process that is traced, as CRIU's are, cannot do what the driver asks: wait until it is let go.
 * Returns whether it lives then. */
static bool await_untraced(pid_t pid)
{
    uint64_t limit = clock_now() + TRACED_NS;
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    for (;;) {
        struct timespec pause = {0, 10000000};
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        if (fs_read_file(AT_FDCWD, path, STATUS_MAX, &text, NULL) != RC_OK ||
            strstr(buf_str(&text), "\nState:\tZ") || strstr(buf_str(&text), "\nState:\tX"))
            return false;
        if (strstr(buf_str(&text), "\nTracerPid:\t0\n") || clock_now() > limit)
            return true;
        (void)nanosleep(&pause, NULL);
    }
}

/* From whatever state to running. */
static int release(const struct task *t)
{
    struct cuda_restore_args no_map = {.pairs = NULL};
    enum gpu_state state;
    if (t->request->verb == GPU_RELEASE && !await_untraced(t->process->pid))
        return CUDA_OK; /* it has ended */
    int code = state_of(t->cuda, t->process->pid, &state);
    if (code == CUDA_OK && state == GPU_CHECKPOINTED)
        code = t->cuda->restore(t->process->pid, &no_map);
    if (code == CUDA_OK && (state == GPU_CHECKPOINTED || state == GPU_LOCKED))
        code = unlock(t);
    return code == CUDA_OK && (state == GPU_FAILED || state == GPU_UNKNOWN) ? CUDA_ILLEGAL_STATE
                                                                            : code;
}

static int find(const struct task *t)
{
    int thread = 0;
    int code = t->cuda->thread(t->process->pid, &thread);
    if (code == CUDA_OK)
        t->process->thread = thread;
    return code;
}

static void *run_task(void *arg)
{
    static int (*const operations[GPU_VERB_COUNT_])(const struct task *) = {
        [GPU_FIND] = find,       [GPU_LOCK] = lock,     [GPU_CHECKPOINT] = checkpoint,
        [GPU_RESTORE] = restore, [GPU_UNLOCK] = unlock, [GPU_RELEASE] = release};
    struct task *t = arg;
    uint64_t begun = clock_now();
    t->process->code = operations[t->verb](t);
    (void)state_of(t->cuda, t->process->pid, &t->process->state);
    t->process->ns = clock_now() - begun;
    return NULL;
}

/* ---- all of them ---- */

static void run_all(struct task *tasks, size_t n, enum gpu_verb verb)
{
    for (size_t i = 0; i < n; i++) {
        tasks[i].verb = verb;
        tasks[i].threaded =
            n > 1 && pthread_create(&tasks[i].thread, NULL, run_task, &tasks[i]) == 0;
    }
    for (size_t i = 0; i < n; i++) {
        if (tasks[i].threaded)
            (void)pthread_join(tasks[i].thread, NULL);
        else
            (void)run_task(&tasks[i]); /* no thread to be had: one after the other */
    }
}

static void explain_failure(const struct cuda *c, const struct gpu_facts *facts, enum gpu_verb verb,
                            struct gpu_process *p)
{
    struct evidence e;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    evidence_read(p->pid, facts, &e);
    explain(verb, p->code, cuda_name(c, p->code), &e, &text);
    (void)snprintf(p->why, sizeof(p->why), "%s", buf_str(&text));
}

/* The first failure is the answer's. */
static void judge(const struct cuda *c, const struct gpu_facts *facts, enum gpu_verb verb,
                  struct gpu_reply *out)
{
    for (size_t i = 0; i < out->n; i++) {
        struct gpu_process *p = &out->process[i];
        if (p->code == CUDA_OK)
            continue;
        explain_failure(c, facts, verb, p);
        if (out->rc)
            continue;
        out->rc = cuda_rc(p->code);
        (void)snprintf(out->why, sizeof(out->why), "process %d: %.260s", (int)p->pid, p->why);
    }
}

/* Everybody back to running; what failed keeps its reason. */
static void take_back(struct task *tasks, struct gpu_reply *out)
{
    size_t n = out->n;
    CLEANUP(mem_freep) struct gpu_process *failed = mem_alloc((n + 1) * sizeof(*failed));
    memcpy(failed, out->process, n * sizeof(*failed));
    run_all(tasks, n, GPU_RELEASE);
    for (size_t i = 0; i < n; i++) {
        struct gpu_process *p = &out->process[i];
        if (p->state != GPU_RUNNING && p->state != GPU_UNKNOWN) {
            out->rc = RC_IO;
            (void)snprintf(out->why, sizeof(out->why),
                           "process %d cannot be brought back (its GPU state is '%s'): end it; "
                           "before that: %.160s",
                           (int)p->pid, gpu_state_name(p->state), failed[i].why);
        }
        p->code = failed[i].code;
        p->ns = failed[i].ns;
        memcpy(p->why, failed[i].why, sizeof(p->why));
    }
}

/* Those that are no CUDA processes are left out. */
static void keep_found(struct gpu_reply *out)
{
    size_t n = 0;
    for (size_t i = 0; i < out->n; i++)
        if (out->process[i].code == CUDA_OK && out->process[i].state != GPU_UNKNOWN)
            out->process[n++] = out->process[i];
    out->n = n;
}

void action_run(const struct cuda *c, const struct gpu_facts *facts,
                const struct gpu_request *request, struct gpu_reply *out)
{
    struct cuda_pair pairs[GPU_DEVICES_MAX];
    struct task *tasks = mem_zalloc((request->n_pids + 1) * sizeof(*tasks));
    for (size_t i = 0; i < request->map.n; i++)
        pairs[i] = (struct cuda_pair){cuda_uuid_of(request->map.pair[i].from),
                                      cuda_uuid_of(request->map.pair[i].to)};
    out->n = request->n_pids;
    for (size_t i = 0; i < out->n; i++) {
        out->process[i] = (struct gpu_process){.pid = request->pid[i], .state = GPU_UNKNOWN};
        tasks[i] = (struct task){.cuda = c,
                                 .request = request,
                                 .pairs = request->map.n ? pairs : NULL,
                                 .process = &out->process[i]};
    }
    run_all(tasks, out->n, request->verb);
    if (request->verb == GPU_FIND) {
        keep_found(out);
    } else {
        judge(c, facts, request->verb, out);
        if (out->rc && (request->verb == GPU_LOCK || request->verb == GPU_CHECKPOINT))
            take_back(tasks, out);
    }
    mem_freep(&tasks);
}

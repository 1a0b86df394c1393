#include "engine/gpus.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/num.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAPS_TEXT_MAX ((size_t)256 << 20)
#define ANSWER_NS (60 * CLOCK_S)    /* for what moves no memory */
#define BYTES_A_SECOND (1ULL << 30) /* slower than this, and the driver is taken to hang */
#define MARGIN_NS (2 * CLOCK_S)     /* the driver's own limit comes before ours */

/* ---- looking at processes ---- */

static bool maps_contain(pid_t pid, const char *what)
{
    char path[64];
    CLEANUP(buf_done) struct buf text = {.max = MAPS_TEXT_MAX};
    (void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    return fs_read_file(AT_FDCWD, path, MAPS_TEXT_MAX, &text, NULL) == RC_OK && text.len &&
           memmem(text.data, text.len, what, strlen(what)) != NULL;
}

static void add_minor(const char *digits, uint32_t *minors, size_t *n, size_t max)
{
    uint64_t minor = 0;
    if (num_parse_u64(digits, 0, UINT32_MAX - 1, &minor, NULL) != RC_OK)
        return; /* nvidiactl, nvidia-uvm */
    for (size_t i = 0; i < *n; i++)
        if (minors[i] == minor)
            return;
    if (*n < max)
        minors[(*n)++] = (uint32_t)minor;
}

char *gpus_device_of(pid_t pid, uint32_t *minors, size_t *n, size_t max)
{
    static const char device[] = "/dev/nvidia";
    char path[64], target[256];
    char *found = NULL;
    (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    for (const struct dirent *e; d && (e = readdir(d));) {
        ssize_t len = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);
        target[len > 0 ? len : 0] = '\0';
        if (strncmp(target, device, sizeof(device) - 1) != 0)
            continue;
        if (!found)
            found = mem_asprintf("'%.64s', descriptor %s", target, e->d_name);
        if (minors)
            add_minor(target + sizeof(device) - 1, minors, n, max);
    }
    if (d)
        (void)closedir(d);
    if (!found && maps_contain(pid, device))
        found = mem_strdup("'/dev/nvidia...', mapped");
    return found;
}

/* ---- asking ---- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return !a || (b && b < a) ? b : a;
}

/* By when an operation that moves the memory of all GPUs must be over. */
static uint64_t memory_deadline(const struct gpus *g, uint64_t deadline)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < g->facts.n_devices; i++)
        bytes += g->facts.device[i].memory_bytes;
    return earlier(deadline, clock_now() + ANSWER_NS + bytes / BYTES_A_SECOND * CLOCK_S);
}

static enum rc ask(struct gpus *g, enum gpu_verb verb, uint64_t deadline, struct gpu_reply *out,
                   struct err *err)
{
    CLEANUP(mem_freep) struct gpu_request *q = mem_zalloc(sizeof(*q));
    q->verb = verb;
    q->n_pids = g->n;
    memcpy(q->pid, g->pid, g->n * sizeof(*q->pid));
    if (verb == GPU_RESTORE)
        q->map = g->map;
    if (verb == GPU_LOCK) {
        uint64_t now = clock_now(), until = deadline > now + MARGIN_NS ? deadline - MARGIN_NS : now;
        q->timeout_ms = (uint32_t)((until - now) / CLOCK_MS + 1);
    }
    return gpu_helper_call(g->helper, q, deadline, out, err);
}

static enum rc order(struct gpus *g, enum gpu_verb verb, uint64_t deadline, struct err *err)
{
    CLEANUP(mem_freep) struct gpu_reply *r = mem_zalloc(sizeof(*r));
    return ask(g, verb, deadline, r, err);
}

/* Start the helper and learn what GPUs there are. */
static enum rc open_helper(struct gpus *g, struct err *err)
{
    CLEANUP(mem_freep) struct gpu_reply *r = mem_zalloc(sizeof(*r));
    CLEANUP(mem_freep) char *program = NULL;
    enum rc rc = gpu_helper_find(&program, err);
    if (!rc)
        rc = gpu_helper_open(program, &g->helper, err);
    if (!rc)
        rc = ask(g, GPU_HELLO, clock_now() + ANSWER_NS, r, err);
    if (!rc)
        g->facts = r->facts;
    if (rc == RC_NOT_FOUND && err) /* for a checkpoint the same as that it cannot be done */
        rc = err->rc = RC_UNSUPPORTED;
    return rc;
}

/* ---- finding ---- */

static enum rc judge(const struct gpu_process *p, bool *out_ours, struct err *err)
{
    *out_ours = p->state == GPU_RUNNING;
    if (p->state == GPU_RUNNING || p->state == GPU_CHECKPOINTED) /* by its user: so it stays */
        return RC_OK;
    return err_set(
        err, RC_CONFLICT,
        "the GPU state of process %d is '%s': somebody else is at it, or has left it so; "
        "chrek-gpu release %d brings it back",
        (int)p->pid, gpu_state_name(p->state), (int)p->pid);
}

static enum rc choose(struct gpus *g, const struct proc_facts *tree, size_t n,
                      const struct gpu_reply *found, struct err *err)
{
    uint32_t minors[GPU_DEVICES_MAX];
    size_t n_minors = 0, n_candidates = g->n;
    enum rc rc = RC_OK;
    g->n = 0;
    for (size_t i = 0; !rc && i < n_candidates; i++) {
        const struct gpu_process *p = NULL;
        pid_t pid = g->pid[i];
        bool ours = false;
        for (size_t k = 0; k < found->n; k++)
            if (found->process[k].pid == pid)
                p = &found->process[k];
        CLEANUP(mem_freep) char *device = gpus_device_of(pid, minors, &n_minors, GPU_DEVICES_MAX);
        if (p)
            rc = judge(p, &ours, err);
        else if (device)
            rc = err_set(
                err, RC_UNSUPPORTED,
                "process %d has a GPU open (%s) but no CUDA state: NVML or graphics; let it "
                "close that (nvmlShutdown) before its checkpoint",
                (int)pid, device);
        for (size_t k = 0; ours && k < n; k++)
            if (tree[k].pid == pid) {
                g->inner[g->n] = tree[k].inner;
                g->pid[g->n++] = pid;
            }
    }
    gpu_facts_keep(&g->facts, minors, n_minors);
    return rc;
}

static enum rc examine(struct gpus *g, const struct proc_facts *tree, size_t n, struct err *err)
{
    CLEANUP(mem_freep) struct gpu_reply *r = mem_zalloc(sizeof(*r));
    enum rc rc = open_helper(g, err);
    if (!rc && !g->facts.can_checkpoint)
        rc = err_set(err, RC_UNSUPPORTED,
                     "GPU driver %s cannot save GPU state; install 570 or newer", g->facts.driver);
    if (!rc)
        rc = ask(g, GPU_FIND, clock_now() + ANSWER_NS, r, err);
    return rc ? rc : choose(g, tree, n, r, err);
}

enum rc gpus_find(const struct proc_facts *tree, size_t n, struct gpus *out, struct err *err)
{
    CLEANUP(mem_freep) struct gpus *g = mem_zalloc(sizeof(*g));
    bool open = false;
    for (size_t i = 0; i < n; i++) {
        if (tree[i].state == 'Z' || !maps_contain(tree[i].pid, "/libcuda.so"))
            continue;
        if (g->n == GPU_PIDS_MAX)
            return err_set(err, RC_TOO_BIG, "more than %d processes use a GPU", GPU_PIDS_MAX);
        CLEANUP(mem_freep) char *device = gpus_device_of(tree[i].pid, NULL, NULL, 0);
        open = open || device;
        g->pid[g->n++] = tree[i].pid;
    }
    if (g->n) {
        struct err why = ERR_INIT;
        enum rc rc = examine(g, tree, n, &why);
        if (rc && (open || rc == RC_CONFLICT)) {
            gpus_done(g);
            if (err)
                *err = why;
            return rc;
        }
        if (rc) /* the library is loaded, but no GPU is in use */
            g->n = 0;
    }
    if (!g->n)
        gpus_done(g);
    *out = *g;
    return RC_OK;
}

/* ---- a checkpoint ---- */

enum rc gpus_lock(struct gpus *g, uint64_t deadline, struct err *err)
{
    g->touched = true;
    return order(g, GPU_LOCK, earlier(deadline, clock_now() + GPUS_LOCK_NS), err);
}

/* "A process no longer refers to any GPU": where that is not so, CRIU would only say that it cannot
 * save a device. */
static enum rc look_for_devices(const struct gpus *g, struct err *err)
{
    for (size_t i = 0; i < g->n; i++) {
        CLEANUP(mem_freep) char *device = gpus_device_of(g->pid[i], NULL, NULL, 0);
        if (device)
            return err_set(
                err, RC_UNSUPPORTED,
                "the driver has left a GPU of process %d open (%s): it is in use by other "
                "than CUDA, such as NVML or graphics; let the program close it "
                "(nvmlShutdown)",
                (int)g->pid[i], device);
    }
    return RC_OK;
}

enum rc gpus_save(struct gpus *g, uint64_t deadline, struct err *err)
{
    g->touched = true;
    enum rc rc = order(g, GPU_CHECKPOINT, memory_deadline(g, deadline), err);
    return rc ? rc : look_for_devices(g, err);
}

enum rc gpus_resume(struct gpus *g, uint64_t deadline, struct err *err)
{
    enum rc rc = order(g, GPU_RELEASE, memory_deadline(g, deadline), err);
    if (!rc)
        g->touched = false;
    return rc;
}

void gpus_release(struct gpus *g, const struct engine *e)
{
    struct err err = ERR_INIT;
    if (!g->helper || !g->touched || gpus_resume(g, 0, &err) == RC_OK)
        return;
    CLEANUP(mem_freep)
    char *text = mem_asprintf("the program may stand still: its GPU state could not be brought "
                              "back: %s; try chrek-gpu release %d",
                              err.msg, (int)g->pid[0]);
    if (e->warn)
        e->warn(e->arg, text);
}

void gpus_describe(const struct gpus *g, struct metadata *m)
{
    if (!g->n || m->gpu)
        return;
    m->gpu = mem_zalloc(sizeof(*m->gpu));
    *m->gpu = g->facts;
    m->gpu_pids = mem_zalloc(g->n * sizeof(*m->gpu_pids));
    for (size_t i = 0; i < g->n; i++)
        m->gpu_pids[m->n_gpu_pids++] = g->inner[i];
}

/* ---- a restore ---- */

enum rc gpus_accept(const struct metadata *m, struct gpus *out, struct err *err)
{
    CLEANUP(mem_freep) struct gpus *g = mem_zalloc(sizeof(*g));
    if (m->gpu) {
        enum rc rc = open_helper(g, err);
        if (!rc)
            rc = gpu_facts_match(m->gpu, &g->facts, &g->map, err);
        if (rc) {
            gpus_done(g);
            return rc;
        }
    }
    *out = *g;
    return RC_OK;
}

static enum rc find_restored(struct gpus *g, const struct metadata *m, pid_t neighbour,
                             struct err *err)
{
    CLEANUP(mem_freep) struct proc_facts *all = NULL;
    size_t n = 0;
    enum rc rc = proc_in_namespace(neighbour, &all, &n, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < m->n_gpu_pids && i < GPU_PIDS_MAX; i++) {
        size_t k = 0;
        while (k < n && all[k].inner != m->gpu_pids[i])
            k++;
        if (k == n)
            return err_set(err, RC_NOT_FOUND, "process %d, which used a GPU, has ended",
                           (int)m->gpu_pids[i]);
        g->inner[g->n] = all[k].inner;
        g->pid[g->n++] = all[k].pid;
    }
    return RC_OK;
}

enum rc gpus_restore(struct gpus *g, const struct metadata *m, pid_t neighbour, uint64_t deadline,
                     struct err *err)
{
    enum rc rc = find_restored(g, m, neighbour, err);
    return rc ? rc : order(g, GPU_RESTORE, memory_deadline(g, deadline), err);
}

enum rc gpus_unlock(struct gpus *g, uint64_t deadline, struct err *err)
{
    return order(g, GPU_UNLOCK, earlier(deadline, clock_now() + ANSWER_NS), err);
}

void gpus_done(struct gpus *g)
{
    gpu_helper_freep(&g->helper);
}

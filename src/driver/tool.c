#include "driver/tool.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/num.h"
#include "driver/serve.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define PID_LIMIT 4194304

static const char help[] =
    "Checkpoint and restore of a process's CUDA state, with the options of NVIDIA's tool.\n"
    "(chrek-gpu " CHREK_VERSION ")\n"
    "\n"
    "Operations:\n"
    "  --get-state --pid PID           print running, locked, checkpointed or failed\n"
    "  --get-restore-tid --pid PID     print the thread that carries out what the driver asks\n"
    "  --action lock|checkpoint|restore|unlock --pid PID\n"
    "  --toggle --pid PID              running to checkpointed, or back\n"
    "\n"
    "Options:\n"
    "  --pid, -p PID                   the process\n"
    "  --timeout, -t MS                how long a lock may wait for running work\n"
    "  --device-map, -d OLD=NEW,...    restore onto other GPUs (driver 580 and newer)\n"
    "  --help, -h                      this text\n";

enum operation { OP_NONE, OP_STATE, OP_THREAD, OP_ACTION, OP_TOGGLE };

struct arguments {
    enum operation operation;
    unsigned operations; /* how many were given */
    enum gpu_verb action;
    pid_t pid;
    uint32_t timeout_ms;
    struct gpu_map map;
};

static const struct option options[] = {
    {"get-state", no_argument, NULL, 's'},
    {"get-restore-tid", no_argument, NULL, 'r'},
    {"action", required_argument, NULL, 'a'},
    {"toggle", no_argument, NULL, 'g'},
    {"pid", required_argument, NULL, 'p'},
    {"timeout", required_argument, NULL, 't'},
    {"help", no_argument, NULL, 'h'},
    {"device-map", required_argument, NULL, 'd'},
    {NULL, 0, NULL, 0},
};

static enum rc set_operation(struct arguments *a, enum operation operation)
{
    a->operation = operation;
    a->operations++;
    return RC_OK;
}

static enum rc set_action(struct arguments *a, const char *text, struct err *err)
{
    static const enum gpu_verb actions[] = {GPU_LOCK, GPU_CHECKPOINT, GPU_RESTORE, GPU_UNLOCK};
    for (size_t i = 0; i < ARRAY_LEN(actions); i++)
        if (strcmp(text, gpu_verb_name(actions[i])) == 0) {
            a->action = actions[i];
            return set_operation(a, OP_ACTION);
        }
    return err_set(err, RC_INVALID,
                   "no action '%.40s'; there are lock, checkpoint, restore, unlock", text);
}

static enum rc set_option(struct arguments *a, int option, const char *value, struct err *err)
{
    uint64_t n = 0;
    enum rc rc = RC_OK;
    switch (option) {
    case 's':
        return set_operation(a, OP_STATE);
    case 'r':
        return set_operation(a, OP_THREAD);
    case 'g':
        return set_operation(a, OP_TOGGLE);
    case 'a':
        return set_action(a, value, err);
    case 'd':
        return gpu_map_parse(value, &a->map, err);
    case 'p':
        rc = num_parse_u64(value, 1, PID_LIMIT, &n, err);
        a->pid = (pid_t)n;
        return rc ? err_ctx(err, rc, "--pid") : RC_OK;
    case 't':
        rc = num_parse_u64(value, 0, UINT32_MAX, &n, err);
        a->timeout_ms = (uint32_t)n;
        return rc ? err_ctx(err, rc, "--timeout") : RC_OK;
    default:
        return err_set(err, RC_INVALID, "unknown option");
    }
}

/* RC_NOT_FOUND: the help was asked for. */
static enum rc parse(int argc, char **argv, struct arguments *a, struct err *err)
{
    int option;
    enum rc rc = RC_OK;
    while (!rc && (option = getopt_long(argc, argv, "p:t:d:h", options, NULL)) >= 0)
        rc = option == 'h' ? RC_NOT_FOUND : set_option(a, option, optarg, err);
    if (!rc && optind < argc)
        rc = err_set(err, RC_INVALID, "'%.100s' is no option", argv[optind]);
    if (!rc && a->operations != 1)
        rc = err_set(err, RC_INVALID,
                     "give one of --get-state, --get-restore-tid, --action, --toggle");
    if (!rc && !a->pid)
        rc = err_set(err, RC_INVALID, "give a process: --pid PID");
    return rc;
}

static enum rc ask(struct driver *d, const struct arguments *a, enum gpu_verb verb,
                   struct gpu_process *out, struct err *err)
{
    CLEANUP(mem_freep) struct gpu_request *request = mem_zalloc(sizeof(*request));
    CLEANUP(mem_freep) struct gpu_reply *reply = mem_zalloc(sizeof(*reply));
    *request =
        (struct gpu_request){.verb = verb, .timeout_ms = a->timeout_ms, .n_pids = 1, .map = a->map};
    request->pid[0] = a->pid;
    driver_answer(d, request, reply);
    if (reply->rc)
        return err_set(err, reply->rc, "%s", reply->why);
    if (reply->n != 1)
        return err_set(err, RC_NOT_FOUND, "process %d does not use CUDA", (int)a->pid);
    *out = reply->process[0];
    return RC_OK;
}

static enum rc toggle(struct driver *d, const struct arguments *a, struct err *err)
{
    struct gpu_process p = {0};
    enum rc rc = ask(d, a, GPU_FIND, &p, err);
    if (rc)
        return rc;
    if (p.state != GPU_RUNNING && p.state != GPU_CHECKPOINTED)
        return err_set(err, RC_CONFLICT, "process %d is '%s'", (int)a->pid,
                       gpu_state_name(p.state));
    bool back = p.state == GPU_CHECKPOINTED;
    rc = ask(d, a, back ? GPU_RESTORE : GPU_LOCK, &p, err);
    return rc ? rc : ask(d, a, back ? GPU_UNLOCK : GPU_CHECKPOINT, &p, err);
}

static enum rc carry_out(struct driver *d, const struct arguments *a, struct err *err)
{
    struct gpu_process p = {0};
    if (a->operation == OP_TOGGLE)
        return toggle(d, a, err);
    enum rc rc = ask(d, a, a->operation == OP_ACTION ? a->action : GPU_FIND, &p, err);
    if (!rc && a->operation == OP_STATE)
        (void)printf("%s\n", gpu_state_name(p.state));
    if (!rc && a->operation == OP_THREAD)
        (void)printf("%d\n", (int)p.thread);
    return rc;
}

int tool_main(int argc, char **argv)
{
    struct arguments a = {.operation = OP_NONE};
    struct err err = ERR_INIT;
    enum rc rc = parse(argc, argv, &a, &err);
    if (rc == RC_NOT_FOUND)
        return fputs(help, stdout) < 0;
    if (!rc) {
        CLEANUP(driver_freep) struct driver *d = driver_start();
        rc = carry_out(d, &a, &err);
    }
    if (rc)
        (void)fprintf(stderr, "cuda-checkpoint: %s\n", err.msg);
    return rc != RC_OK || fflush(stdout) != 0;
}

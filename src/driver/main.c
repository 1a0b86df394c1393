/* chrek-gpu: the CUDA driver's checkpoint functions, in a process of their own.
 * Called by the name cuda-checkpoint, it has that tool's command line. */
#include "base/buf.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/opt.h"
#include "base/sys.h"
#include "base/term.h"
#include "driver/serve.h"
#include "driver/tool.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int list_main(const struct opt_command *self, int argc, char **argv);
static int release_main(const struct opt_command *self, int argc, char **argv);
static int serve_main(const struct opt_command *self, int argc, char **argv);

static const struct opt no_options[] = {{.name = NULL}};

static const struct opt_command cmd_list = {
    .name = "list",
    .summary = "show the driver and the GPUs",
    .synopsis = "",
    .description = "Shows what a checkpoint records of this machine's GPUs, and what its driver "
                   "can do.",
    .opts = no_options,
    .run = list_main,
};

static const struct opt_command cmd_release = {
    .name = "release",
    .summary = "bring processes back to running on their GPU",
    .synopsis = "PID...",
    .description =
        "Restores and unlocks processes that were left locked or checkpointed, for instance "
        "by a tool that was killed.",
    .opts = no_options,
    .min_operands = 1,
    .max_operands = GPU_PIDS_MAX,
    .run = release_main,
};

static const struct opt_command cmd_serve = {
    .name = "serve",
    .summary = "answer requests on standard input",
    .synopsis = "",
    .description = "Answers chrek, on the socket that is its standard input.",
    .opts = no_options,
    .run = serve_main,
};

static const struct opt_command *const commands[] = {&cmd_list, &cmd_release, &cmd_serve, NULL};

static const struct opt_program program = {
    .name = "chrek-gpu",
    .summary = "checkpoint and restore of GPU state",
    .description = "Moves the GPU state of CUDA processes into their memory and back. chrek starts "
                   "it where a program uses a GPU; `list` and `release` are for people. By the "
                   "name cuda-checkpoint it has the options of NVIDIA's tool.",
    .commands = commands,
    .exit_status = "0  success\n1  failure\n2  the command line is wrong\n",
    .environment = "CHREK_GPU  which chrek-gpu chrek starts\n",
    .files = "libcuda.so.1, libnvidia-ml.so.1  the driver's libraries, found as any other\n",
};

static int fail(const struct err *err)
{
    (void)fprintf(stderr, "chrek-gpu: error: %s\n", err->msg);
    return err->rc == RC_INVALID ? 2 : 1;
}

static int print(const struct buf *text)
{
    struct err err = ERR_INIT;
    return sys_write_all(STDOUT_FILENO, buf_str(text), text->len, &err) ? fail(&err) : 0;
}

/* Returns whether there was no error. */
static bool arguments(const struct opt_command *self, int argc, char **argv, int *first,
                      struct err *err)
{
    int none = 0;
    return opt_parse(self, &none, argc, argv, first, err) == RC_OK;
}

/* ---- list ---- */

static void describe(const struct gpu_facts *f, struct buf *out)
{
    static const char *const titles[] = {"GPU", ">MEMORY", "MIG", "UUID"};
    struct term_table t;
    buf_addf(out, "Driver %s, CUDA %u.%u: %s\n\n", f->driver[0] ? f->driver : "unknown",
             f->cuda / 1000, f->cuda % 1000 / 10,
             !f->can_checkpoint ? "cannot save GPU state (570 and newer can)"
             : f->can_map       ? "saves GPU state, restores onto any GPU of the same model"
                                : "saves GPU state, restores onto the same GPU (580 and newer onto "
                                  "any of the model)");
    term_table_init(&t, titles, ARRAY_LEN(titles));
    for (size_t i = 0; i < f->n_devices; i++) {
        const struct gpu_device *d = &f->device[i];
        CLEANUP(buf_done) struct buf size = BUF_INIT;
        term_size(d->memory_bytes, &size);
        const char *cells[] = {d->name, buf_str(&size), d->mig ? "on" : "off", d->uuid};
        term_table_row(&t, cells);
    }
    term_table_print(&t, out);
    term_table_done(&t);
}

static int ask(const struct gpu_request *request, struct gpu_reply *reply, struct err *err)
{
    CLEANUP(driver_freep) struct driver *d = driver_start();
    driver_answer(d, request, reply);
    if (!reply->rc)
        return 0;
    (void)!err_set(err, reply->rc, "%s", reply->why);
    return fail(err);
}

static int list_main(const struct opt_command *self, int argc, char **argv)
{
    struct err err = ERR_INIT;
    int first = 0;
    if (!arguments(self, argc, argv, &first, &err))
        return fail(&err);
    CLEANUP(mem_freep) struct gpu_request *request = mem_zalloc(sizeof(*request));
    CLEANUP(mem_freep) struct gpu_reply *reply = mem_zalloc(sizeof(*reply));
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    request->verb = GPU_HELLO;
    int status = ask(request, reply, &err);
    if (status)
        return status;
    describe(&reply->facts, &out);
    return print(&out);
}

/* ---- release ---- */

static int release_main(const struct opt_command *self, int argc, char **argv)
{
    struct err err = ERR_INIT;
    int first = 0;
    CLEANUP(mem_freep) struct gpu_request *request = mem_zalloc(sizeof(*request));
    CLEANUP(mem_freep) struct gpu_reply *reply = mem_zalloc(sizeof(*reply));
    if (!arguments(self, argc, argv, &first, &err))
        return fail(&err);
    request->verb = GPU_RELEASE;
    for (int i = first; i < argc; i++) {
        uint64_t pid = 0;
        enum rc rc = num_parse_u64(argv[i], 1, 4194304, &pid, &err);
        if (rc) {
            (void)err_ctx(&err, rc, "PID");
            return fail(&err);
        }
        request->pid[request->n_pids++] = (pid_t)pid;
    }
    return ask(request, reply, &err);
}

/* ---- serve ---- */

static int serve_main(const struct opt_command *self, int argc, char **argv)
{
    struct err err = ERR_INIT;
    int first = 0;
    struct sigaction alone = {.sa_handler = serve_alone, .sa_flags = SA_RESTART};
    (void)sigaction(GPU_ALONE_SIGNAL, &alone, NULL);
    if (!arguments(self, argc, argv, &first, &err) || serve(STDIN_FILENO, &err))
        return fail(&err);
    return 0;
}

/* ---- choosing ---- */

static const struct opt_command *find_command(const char *word)
{
    for (size_t i = 0; commands[i]; i++)
        if (strcmp(commands[i]->name, word) == 0)
            return commands[i];
    return NULL;
}

int main(int argc, char **argv)
{
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *name = slash ? slash + 1 : argc > 0 ? argv[0] : "";
    if (strcmp(name, "cuda-checkpoint") == 0)
        return tool_main(argc, argv);
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    const char *word = argc > 1 ? argv[1] : "--help";
    if (strcmp(word, "--version") == 0) {
        buf_adds(&text, "chrek-gpu " CHREK_VERSION "\n");
        return print(&text);
    }
    const struct opt_command *c = find_command(word);
    if (!c) {
        bool help = strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
        struct err err = ERR_INIT;
        if (!help) {
            (void)!err_set(&err, RC_INVALID, "unknown command '%.64s'", word);
            return fail(&err);
        }
        opt_help_program(&program, &text);
        return print(&text);
    }
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            opt_help_command(&program, c, &text);
            return print(&text);
        }
    return c->run(c, argc - 2, argv + 2);
}

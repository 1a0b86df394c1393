/* The table of commands, and the commands that talk about it: help, __man, __completion. */
#include "cli/program.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "engine/registry.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int man_main(const struct opt_command *self, int argc, char **argv);
static int completion_main(const struct opt_command *self, int argc, char **argv);
static int help_main(const struct opt_command *self, int argc, char **argv);
static int ids_main(const struct opt_command *self, int argc, char **argv);
static int boxes_main(const struct opt_command *self, int argc, char **argv);
static const struct opt no_options[] = {{.name = NULL}};

/* For the build: what is generated from these tables. */
static const struct opt_command cmd_man = {.name = "__man",
                                           .summary = "write the man pages into a directory",
                                           .synopsis = "DIR",
                                           .description = "Writes the man pages into DIR.",
                                           .opts = no_options,
                                           .min_operands = 1,
                                           .max_operands = 1,
                                           .run = man_main};
static const struct opt_command cmd_completion = {.name = "__completion",
                                                  .summary = "write a shell's completion",
                                                  .synopsis = "bash|zsh|fish",
                                                  .description = "Writes a completion script.",
                                                  .opts = no_options,
                                                  .min_operands = 1,
                                                  .max_operands = 1,
                                                  .run = completion_main};

static const struct opt_command cmd_ids = {.name = "__ids",
                                           .summary = "list what can be restored",
                                           .synopsis = "",
                                           .description = "Lists the ids of checkpoints.",
                                           .opts = no_options,
                                           .run = ids_main};
static const struct opt_command cmd_boxes = {.name = "__boxes",
                                             .summary = "list what runs",
                                             .synopsis = "",
                                             .description = "Lists the names of boxes.",
                                             .opts = no_options,
                                             .run = boxes_main};

static const struct opt_command cmd_help = {
    .name = "help",
    .summary = "explain a command",
    .synopsis = "[COMMAND]",
    .description = "Explains a command, or lists them all; the same as `chrek COMMAND --help`.",
    .opts = no_options,
    .max_operands = 1,
    .run = help_main,
};

static const struct opt_command *const commands[] = {
    &cmd_run,    &cmd_checkpoint, &cmd_restore,   &cmd_ls,      &cmd_inspect,
    &cmd_diff,   &cmd_verify,     &cmd_delete,    &cmd_gc,      &cmd_copy,
    &cmd_export, &cmd_import,     &cmd_prefetch,  &cmd_bench,   &cmd_key,
    &cmd_doctor, &cmd_status,     &cmd_configure, &cmd_version, &cmd_help,
    &cmd_man,    &cmd_completion, &cmd_ids,       &cmd_boxes,   NULL};

const struct opt_program cli_program = {
    .name = "chrek",
    .summary = "checkpoint and restore running programs",
    .description =
        "chrek freezes a running program with everything that belongs to it (memory, open files, "
        "sockets, child processes), stores it, and brings it back in a fraction of the time that "
        "it took to start, any number of times.\n\n"
        "A TIME is a number of seconds or has a unit: 250ms, 30s, 5m, 12h, 7d; so is a SIZE of "
        "bytes: 64K, 512M, 10G.",
    .commands = commands,
    .exit_status =
        "0  success\n"
        "1  failure\n"
        "2  the command line is wrong\n"
        "3  there is no such checkpoint, process or file\n"
        "4  the checkpoint is damaged or unfinished\n"
        "5  this machine or program does not support it\n"
        "6  it took too long\n"
        "7  no space left\n"
        "8  permission denied\n"
        "9  it is there already\n"
        "123  run --stop: there is no checkpoint\n"
        "124  run and restore: the memory of a restored program could no longer be brought in, so "
        "it was ended\n"
        "125  run and restore: chrek itself failed\n"
        "126  run: the command cannot be executed\n"
        "127  run: there is no such command\n"
        "other  run and restore: the exit status of the program; if a signal has ended it, "
        "chrek ends by the same signal\n",
    .environment =
        "CHREK_STORE  the directory of checkpoints, as --store\n"
        "CHREK_CRIU  the criu program, as --criu\n"
        "CHREK_CONFIG  the configuration file\n"
        "CHREK_RESTORE_MODE  how memory is brought back, as --restore-mode of run and --mode of "
        "restore\n"
        "CHREK_CACHE  a cache in front of object storage, as --cache\n"
        "CHREK_CACHE_SIZE  how much it may hold, as --cache-size\n"
        "CRIU_LOG_DIR  where CRIU's log of a failed restore is kept, as --criu-log-dir\n"
        "CHREK_KEY_FILE  the key to encrypt and decrypt with, as --key-file\n"
        "CHREK_KEY_COMMAND  a key service's client, as --key-command\n"
        "CHREK_KEY_TIMEOUT  how long that may take, as --key-timeout\n"
        "CHREK_SIGN_KEY  the key to sign with, as --sign-key\n"
        "CHREK_TRUST_KEY  whose signatures count, as --trust-key\n"
        "CHREK_REQUIRE_SIGNATURE  take nothing unsigned, as --require-signature\n"
        "CHREK_DIR  set for the programs that chrek runs: their application directory\n",
    .files = "/var/lib/chrek/checkpoints  the default store\n"
             "/etc/chrek/config.json  what `chrek configure` sets (for others than root: "
             "~/.config/chrek/config.json)\n"
             "/run/chrek/boxes  what is running\n",
};

const struct opt_command *program_find(const char *name)
{
    for (size_t i = 0; commands[i]; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

static int man_main(const struct opt_command *self, int argc, char **argv)
{
    (void)self;
    (void)argc;
    struct err err = ERR_INIT;
    for (size_t i = 0; commands[i]; i++) {
        bool page = commands[i]->name[0] != '_';
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        CLEANUP(mem_freep) char *path = mem_asprintf("%s/chrek-%s.1", argv[0], commands[i]->name);
        opt_man_command(&cli_program, commands[i], &text);
        if (page && fs_write_whole(AT_FDCWD, path, text.data, text.len, 0644, &err) != RC_OK)
            return cli_fail(&err);
    }
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/chrek.1", argv[0]);
    opt_man_program(&cli_program, &text);
    if (fs_write_whole(AT_FDCWD, path, text.data, text.len, 0644, &err) != RC_OK)
        return cli_fail(&err);
    return CLI_OK;
}

static int completion_main(const struct opt_command *self, int argc, char **argv)
{
    (void)self;
    (void)argc;
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (opt_completion(&cli_program, argv[0], &text, &err) != RC_OK)
        return cli_fail(&err);
    return cli_print(&text);
}

static int ids_main(const struct opt_command *self, int argc, char **argv)
{
    (void)self;
    (void)argc;
    (void)argv;
    struct err err = ERR_INIT;
    char **ids = NULL;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CLEANUP(store_freep) struct store *store = NULL;
    const char *asked = getenv("CHREK_STORE");
    enum rc rc = cli_open_existing(asked && *asked ? asked : NULL, &store, &err);
    if (!rc)
        rc = store_list(store, &ids, &err);
    if (rc)
        return cli_fail(&err);
    for (char **id = ids; *id; id++)
        buf_addf(&out, "%s\n", *id);
    store_free_ids(ids);
    return cli_print(&out);
}

static int boxes_main(const struct opt_command *self, int argc, char **argv)
{
    (void)self;
    (void)argc;
    (void)argv;
    struct err err = ERR_INIT;
    struct registry_box *boxes = NULL;
    size_t n = 0;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    if (registry_list(&boxes, &n, &err) != RC_OK)
        return cli_fail(&err);
    for (size_t i = 0; i < n; i++) {
        buf_addf(&out, "%s\n", boxes[i].name);
        registry_box_done(&boxes[i]);
    }
    free(boxes);
    return cli_print(&out);
}

int program_help(const struct opt_command *about)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (about)
        opt_help_command(&cli_program, about, &text);
    else
        opt_help_program(&cli_program, &text);
    return cli_print(&text);
}

int program_unknown(const char *word)
{
    struct err err = ERR_INIT;
    const char *near = opt_nearest_command(&cli_program, word);
    if (near)
        (void)!err_set(&err, RC_INVALID, "unknown command '%.64s'; did you mean: chrek %s", word,
                       near);
    else
        (void)!err_set(&err, RC_INVALID, "unknown command '%.64s'", word);
    return cli_fail(&err);
}

static int help_main(const struct opt_command *self, int argc, char **argv)
{
    struct err err = ERR_INIT;
    int first = 0, none = 0;
    if (opt_parse(self, &none, argc, argv, &first, &err) != RC_OK)
        return cli_fail(&err);
    if (first == argc)
        return program_help(NULL);
    const struct opt_command *about = program_find(argv[first]);
    return about ? program_help(about) : program_unknown(argv[first]);
}

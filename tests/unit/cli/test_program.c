/* The tables of commands, and what is generated from them. */
#include "base/compiler.h"
#include "base/fs.h"
#include "cli/cli.h"
#include "cli/program.h"
#include "harness/test.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void check_option(const struct opt_command *c, const struct opt *o)
{
    size_t n = strlen(o->help);
    if (!n || !isupper((unsigned char)o->help[0]) || o->help[n - 1] != '.')
        test_fail(__FILE__, __LINE__, "%s --%s: the help is no sentence", c->name, o->name);
    if ((o->kind == OPT_FLAG) != (o->arg == NULL))
        test_fail(__FILE__, __LINE__, "%s --%s: value or flag?", c->name, o->name);
    for (const struct opt *p = c->opts; p != o; p++)
        if (strcmp(p->name, o->name) == 0 || (o->letter && p->letter == o->letter) ||
            p->offset == o->offset)
            test_fail(__FILE__, __LINE__, "%s: --%s and --%s are in each other's way", c->name,
                      p->name, o->name);
}

TEST(every_option_is_described_and_has_a_place_of_its_own)
{
    for (const struct opt_command *const *c = cli_program.commands; *c; c++)
        for (const struct opt *o = (*c)->opts; o->name; o++)
            check_option(*c, o);
}

TEST(every_command_is_found_by_its_name_and_described)
{
    for (const struct opt_command *const *c = cli_program.commands; *c; c++) {
        CHECK(program_find((*c)->name) == *c);
        CHECK((*c)->run && (*c)->opts && (*c)->synopsis);
        CHECK(strlen((*c)->summary) <= 66); /* 80 columns */
        CHECK((*c)->description[strlen((*c)->description) - 1] == '.');
    }
    CHECK(program_find("") == NULL);
    CHECK(program_find("runn") == NULL);
}

TEST(the_commands_that_users_were_promised_are_there)
{
    static const char *const names[] = {"run",     "checkpoint", "restore", "ls",     "inspect",
                                        "diff",    "delete",     "verify",  "doctor", "status",
                                        "version", "configure",  "help"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (!program_find(names[i]))
            test_fail(__FILE__, __LINE__, "no command %s", names[i]);
}

TEST(help_fits_a_terminal_of_80_columns)
{
    for (const struct opt_command *const *c = cli_program.commands; *c; c++) {
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        opt_help_command(&cli_program, *c, &text);
        for (const char *line = buf_str(&text); *line; line += strcspn(line, "\n") + 1)
            if (strcspn(line, "\n") > 80)
                test_fail(__FILE__, __LINE__, "%s: %.90s", (*c)->name, line);
    }
}

/* Run a checker over a text; skips when there is no such program.  Its output must be empty. */
static void check_with(char *const argv[], const struct buf *text)
{
    struct err err = ERR_INIT;
    char path[512], log[512];
    (void)snprintf(path, sizeof(path), "%s/text", test_dir());
    (void)snprintf(log, sizeof(log), "%s/log", test_dir());
    CHECK_OK(fs_write_whole(AT_FDCWD, path, text->data, text->len, 0644, &err));
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        int null = open("/dev/null", O_WRONLY);
        if (fd < 0 || null < 0 || dup2(null, 1) < 0 || dup2(fd, 2) < 0 || chdir(test_dir()) < 0)
            _exit(126);
        execvp(argv[0], argv);
        _exit(127);
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    if (WEXITSTATUS(status) == 127) {
        CLEANUP(buf_done) struct buf why = BUF_INIT;
        buf_addf(&why, "machine: no %s", argv[0]);
        test_skip(buf_str(&why));
    }
    CLEANUP(buf_done) struct buf said = BUF_INIT;
    CHECK_OK(fs_read_file(AT_FDCWD, log, 65536, &said, &err));
    if (status || said.len)
        test_fail(__FILE__, __LINE__, "%s: status %d: %s", argv[0], WEXITSTATUS(status),
                  buf_str(&said));
}

static void check_completion(const char *shell, char *const argv[])
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CHECK_OK(opt_completion(&cli_program, shell, &text, &err));
    CHECK(strstr(buf_str(&text), "ghost-limit"));
    CHECK(!strstr(buf_str(&text), "__man"));
    check_with(argv, &text);
}

static char bash[] = "bash", zsh[] = "zsh", fish[] = "fish", n[] = "-n", file[] = "text";

TEST(the_bash_completion_is_bash)
{
    check_completion("bash", (char *const[]){bash, n, file, NULL});
}

TEST(the_zsh_completion_is_zsh)
{
    check_completion("zsh", (char *const[]){zsh, n, file, NULL});
}

TEST(the_fish_completion_is_fish)
{
    check_completion("fish", (char *const[]){fish, n, file, NULL});
}

TEST(other_shells_are_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CHECK_RC(opt_completion(&cli_program, "csh", &text, &err), RC_INVALID);
}

TEST(man_pages_are_without_mistakes)
{
    static char groff[] = "groff", man[] = "-man", ww[] = "-ww", ascii[] = "-Tascii", z[] = "-z";
    char *const argv[] = {groff, man, ww, ascii, z, file, NULL};
    CLEANUP(buf_done) struct buf all = BUF_INIT;
    opt_man_program(&cli_program, &all);
    check_with(argv, &all);
    for (const struct opt_command *const *c = cli_program.commands; *c; c++) {
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        opt_man_command(&cli_program, *c, &text);
        CHECK(strstr(buf_str(&text), ".SH NAME") && strstr(buf_str(&text), ".SH SYNOPSIS"));
        check_with(argv, &text);
    }
}

TEST(the_page_of_chrek_has_every_variable_that_an_option_has)
{
    for (const struct opt_command *const *c = cli_program.commands; *c; c++)
        for (const struct opt *o = (*c)->opts; o->name; o++) {
            CLEANUP(buf_done) struct buf line = BUF_INIT;
            if (!o->env || strcmp(o->env, "TMPDIR") == 0)
                continue;
            buf_addf(&line, "%s  ", o->env);
            const char *found = strstr(cli_program.environment, buf_str(&line));
            if (!found || (found != cli_program.environment && found[-1] != '\n'))
                test_fail(__FILE__, __LINE__, "--%s: no %s", o->name, o->env);
        }
}

TEST(exit_codes_are_all_documented)
{
    for (int rc = RC_OK; rc < RC_COUNT_; rc++) {
        char line[16];
        (void)snprintf(line, sizeof(line), "%d  ", cli_exit_of((enum rc)rc));
        const char *found = strstr(cli_program.exit_status, line);
        CHECK(found && (found == cli_program.exit_status || found[-1] == '\n'));
    }
    CHECK_INT(cli_exit_of((enum rc)999), CLI_FAILED);
    for (int code = CLI_RUN_UNSAVED; code <= CLI_RUN_ABSENT; code++) {
        char line[16];
        (void)snprintf(line, sizeof(line), "\n%d  ", code);
        CHECK(strstr(cli_program.exit_status, line));
    }
}

TEST(the_page_of_exit_codes_agrees_with_the_table)
{
    struct err err = ERR_INIT;
    char path[512];
    const char *root = getenv("CHREK_SOURCE_ROOT");
    CLEANUP(buf_done) struct buf page = BUF_INIT;
    if (!root)
        test_skip("CHREK_SOURCE_ROOT is not set");
    (void)snprintf(path, sizeof(path), "%s/docs/exit-codes.md", root);
    CHECK_OK(fs_read_file(AT_FDCWD, path, 65536, &page, &err));
    for (const char *line = cli_program.exit_status; *line; line += strcspn(line, "\n") + 1) {
        CLEANUP(buf_done) struct buf want = BUF_INIT;
        size_t code = strcspn(line, " "), text = code + strspn(line + code, " ");
        size_t end = text + strcspn(line + text, "\n;");
        buf_addf(&want, "| %.*s | %.*s |", (int)code, line, (int)(end - text), line + text);
        if (!strstr(buf_str(&page), buf_str(&want)))
            test_fail(__FILE__, __LINE__, "docs/exit-codes.md lacks: %s", buf_str(&want));
    }
}

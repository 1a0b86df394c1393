/* Options and commands of a program, said once, in tables.
 *
 * A table parses the arguments and writes --help, the man page and the shell completions, so these
 * cannot disagree.  A value comes from the argument, else from the option's environment variable,
 * else it is what the caller's struct already holds.  An empty variable counts as none, and one
 * whose option was given is not looked at.  Of a variable, 1, true, yes and on set a flag; anything
 * else clears it.
 *
 * Options look like --name VALUE, --name=VALUE, -n VALUE, --flag, --no-flag; `--` ends them.
 * Threads: tables are constant; a parse belongs to one thread.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum opt_kind {
    OPT_FLAG,     /* bool */
    OPT_STRING,   /* const char *, borrowed from argv or the environment */
    OPT_U64,      /* uint64_t */
    OPT_SIZE,     /* uint64_t, bytes: 512M */
    OPT_DURATION, /* uint64_t, ns: 30s */
    OPT_LIST,     /* struct opt_list: may be given more than once */
};

#define OPT_LIST_MAX 64

struct opt_list {
    size_t n;
    const char *item[OPT_LIST_MAX];
};

struct opt {
    const char *name;
    char letter; /* 0 = none */
    enum opt_kind kind;
    const char *arg;  /* its value's name for people: "DIR"; NULL for a flag */
    size_t offset;    /* of the value in the caller's struct */
    const char *env;  /* variable that gives the value too, or NULL */
    const char *help; /* one or more sentences */
};

struct opt_command {
    const char *name;
    const char *summary;            /* one line, lower case, no full stop */
    const char *synopsis;           /* the arguments, as in "[OPTIONS] PID|NAME" */
    const char *description;        /* paragraphs, separated by an empty line */
    const char *examples;           /* lines: "# what for" and commands, or NULL */
    const struct opt *opts;         /* ends with a NULL name */
    bool stop_at_operand;           /* the first argument that is no option ends the options */
    int min_operands, max_operands; /* -1 = any number */
    const char *candidates; /* for completions: the command that lists operands, a line each; NULL
                               = files */
    int (*run)(const struct opt_command *self, int argc, char **argv);
};

struct opt_program {
    const char *name, *summary, *description;
    const struct opt_command *const *commands; /* ends with NULL */
    const char *exit_status;                   /* lines "N  text" */
    const char *environment;                   /* lines "NAME  text" */
    const char *files;                         /* lines "path  text" */
};

/* Parse the arguments after a command's name.
 * values      the command's struct, with its defaults; partly set unless RC_OK
 * out_first   index of the first operand in argv; operands are moved behind the options
 * errors      RC_INVALID: which argument, why, and what was perhaps meant */
enum rc opt_parse(const struct opt_command *c, void *values, int argc, char **argv, int *out_first,
                  struct err *err);

/* Whether --help or -h is among a command's options: not as an option's value, not behind `--`, and
 * not among the words of somebody else's command (stop_at_operand). */
bool opt_asks_for_help(const struct opt_command *c, int argc, char **argv);

/* Texts: plain for a terminal of 80 columns, roff for man, scripts for shells. */
void opt_help_program(const struct opt_program *p, struct buf *out);
void opt_help_command(const struct opt_program *p, const struct opt_command *c, struct buf *out);
void opt_man_program(const struct opt_program *p, struct buf *out);
void opt_man_command(const struct opt_program *p, const struct opt_command *c, struct buf *out);
/* shell  "bash", "zsh" or "fish".  errors RC_INVALID */
enum rc opt_completion(const struct opt_program *p, const char *shell, struct buf *out,
                       struct err *err);

/* The nearest of the commands' names, or NULL when none is near. */
const char *opt_nearest_command(const struct opt_program *p, const char *word);

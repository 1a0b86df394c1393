/* The program chrek as a table (base/opt.h).  Threads: constant. */
#pragma once

#include "base/opt.h"

extern const struct opt_program cli_program;

/* The command of that name, or NULL. */
const struct opt_command *program_find(const char *name);
/* Print the help of a command, or of all for NULL; returns the exit code. */
int program_help(const struct opt_command *about);
/* Complain about a word that is no command; returns the exit code. */
int program_unknown(const char *word);
